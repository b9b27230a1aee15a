"""The gate's own port: its metrics, and whether it still ticks."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tabserve.rollout.gate import Gate
from tabserve.rollout.state import PHASES

PORT = 8082
SILENT_SECONDS = 120
"""A gate that has not ticked for so long is not alive."""
_LARGEST = 700.0
"""A logarithm whose number a float still holds."""


class Page(Collector):
    """The gate's metrics."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.ticked = time.time()
        """When the gate ticked last, in seconds since 1970."""

    def tick(self) -> None:
        """Note that the gate has ticked."""
        self.ticked = time.time()

    def collect(self) -> Iterator[Metric]:
        """The metrics in Prometheus' form."""
        state, ledger = self.gate.state, self.gate.ledger
        point = state.history[-1] if state.history else None
        checks, budgets = (point.checks, point.budgets) if point else ({}, {})
        yield GaugeMetricFamily("tabserve_rollout_weight", "Percent of the canary", state.weight)
        yield GaugeMetricFamily("tabserve_rollout_threshold", "Evidence that decides", 1 / state.rules.false_rollback)
        yield _by("tabserve_rollout_evidence", "Evidence against the canary", "check", checks)
        yield _by("tabserve_rollout_proof", "Proof that a budget is kept", "budget", budgets)
        yield GaugeMetricFamily("tabserve_rollout_pairs", "Pairs of answers compared", ledger.pairs.decided)
        yield GaugeMetricFamily("tabserve_rollout_disagreement", "Pairs that differ", ledger.pairs.different)
        if ledger.dispersion is not None:
            yield GaugeMetricFamily("tabserve_rollout_dispersion", "What errors are discounted by", ledger.dispersion)
        yield _one_of("tabserve_rollout_verdict", "Where the rollout stands", "outcome", PHASES, state.phase)
        yield GaugeMetricFamily("tabserve_rollout_last_tick_seconds", "When the gate last looked", self.ticked)


def serve(page: Page, port: int = PORT) -> Callable[[], None]:
    """Serve `/metrics` and `/v2/health/live` in a thread; returns what ends it. Raises OSError if the port is taken."""
    registry = CollectorRegistry()
    registry.register(page)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, generate_latest(registry))
            else:
                alive = time.time() - page.ticked < SILENT_SECONDS
                self._answer(200 if alive else 503, b"")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log no requests."""

    server = ThreadingHTTPServer(("0.0.0.0", port), Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()

    def end() -> None:
        server.shutdown()
        server.server_close()

    return end


def _by(name: str, told: str, label: str, logs: dict[str, float]) -> Metric:
    family = GaugeMetricFamily(name, told, labels=[label])
    for value, log in logs.items():
        family.add_metric([value], math.exp(min(log, _LARGEST)))
    return family


def _one_of(name: str, told: str, label: str, values: tuple[str, ...], found: str) -> Metric:
    family = GaugeMetricFamily(name, told, labels=[label])
    for value in values:
        family.add_metric([value], float(value == found))
    return family
