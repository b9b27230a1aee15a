"""The gate's own port: its metrics, and whether it still ticks."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tabserve.inference.admin import Heartbeat, answering
from tabserve.inference.rest.pages import liveness_pages, metrics_pages
from tabserve.rollout.gate import Gate
from tabserve.rollout.state import PHASES

PORT = 8082
SILENT_SECONDS = 120
"""A gate that has not ticked for so long is not alive."""
_LARGEST = 700.0
"""A logarithm whose number a float still holds."""


class Page(Collector):
    """The gate's metrics. heart: beats with each tick, by a clock in seconds, `now`."""

    def __init__(self, gate: Gate, now: Callable[[], float] = time.monotonic) -> None:
        self.gate, self.heart = gate, Heartbeat(now, stalled_seconds=SILENT_SECONDS)
        self.tick()

    def tick(self) -> None:
        """Note that the gate has ticked."""
        self.heart.beat()
        self._ticked = time.time()

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
        yield GaugeMetricFamily("tabserve_rollout_last_tick_seconds", "When the gate last looked", self._ticked)


@contextmanager
def serving(page: Page, port: int = PORT) -> Iterator[None]:
    """Answer `/metrics` and health at a port while the block runs. Raises OSError if the port is taken."""
    registry = CollectorRegistry()
    registry.register(page)
    pages = {
        **liveness_pages(lambda: page.heart.live, lambda: page.heart.live),
        **metrics_pages(lambda: generate_latest(registry)),
    }
    with answering(socket.create_server(("0.0.0.0", port)), pages):
        yield


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
