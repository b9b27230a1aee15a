"""The interface of scenarios: they ask for load and get back measurements, from one generator or several."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import gevent
import gevent.event
import msgspec
from locust.env import Environment
from locust.runners import LocalRunner, MasterRunner

from tabserve_loadtest.objectives import Objectives, Plan
from tabserve_loadtest.payloads import Payload
from tabserve_loadtest.phases import BODY, PREPARE, PROGRESS, READY, RECORDED, START, Phase, Prepare, Progress, pack
from tabserve_loadtest.recording import Recording
from tabserve_loadtest.replicas import Replicas
from tabserve_loadtest.result import StockNumbers
from tabserve_loadtest.schedule import Process, Segment
from tabserve_loadtest.stock import numbers
from tabserve_loadtest.target import Target

LEAD_SECONDS = 0.5
PREPARE_SECONDS = 60.0
WARM_UP_SECONDS = 1.0


class BenchError(Exception):
    """A generator was lost or did not get ready, so the run is INVALID."""


class Bench:
    """Load on one target.

    payloads: makes requests of a number of rows. tell: called with lines of progress. watched: the target's replicas.
    """

    def __init__(
        self,
        environment: Environment,
        target: Target,
        plan: Plan,
        payloads: Callable[[int], list[Payload]],
        seed: int,
        tell: Callable[[str], None],
        watched: Replicas | None = None,
    ) -> None:
        assert isinstance(environment.runner, LocalRunner | MasterRunner)
        self._runner = environment.runner
        self._stats = environment.stats
        self._target = target
        self.plan = plan
        self.scenario = ""
        self._payloads = payloads
        self._seed = seed
        self._tell = tell
        self._watched = watched
        self._rows = 0
        self._ready = 0
        self._recordings: list[Recording] = []
        self._progress: dict[str, Progress] = {}
        self._changed = gevent.event.Event()
        self._runner.register_message(READY, self._on_ready)
        self._runner.register_message(PROGRESS, self._on_progress)
        self._runner.register_message(RECORDED, self._on_recorded)

    @property
    def objectives(self) -> Objectives:
        """The objectives of the running scenario."""
        return self.plan.scenarios[self.scenario]

    def open(self, segments: Sequence[Segment], process: Process = "poisson") -> Recording:
        """Send requests by a schedule, whether or not earlier ones are answered. Raises BenchError."""
        self._seed += 1
        return self._run(Phase(tuple(segments), process, self._seed))

    def closed(self, users: int, seconds: float) -> Recording:
        """Let users send their next request when the last is answered. Raises BenchError."""
        return self._run(Phase(users=users, seconds=seconds))

    def warm_up(self) -> None:
        """Send two requests at a time for a moment, and record nothing. Raises BenchError."""
        self.closed(2, WARM_UP_SECONDS)

    def stock_numbers(self) -> list[StockNumbers]:
        """Locust's own statistics about the last stretch of load."""
        return numbers(self._stats)

    def replicas(self, start: float, seconds: float) -> dict[str, list[tuple[float, int]]]:
        """Pairs (seconds after `start`, ready replicas) by Deployment; empty if the cluster is not watched."""
        return self._watched.since(start, seconds) if self._watched else {}

    def pause(self, seconds: float) -> None:
        """Send nothing for a while."""
        gevent.sleep(seconds)

    def tell(self, text: str) -> None:
        """Print a line of progress."""
        self._tell(f"{self.scenario}: {text}")

    def _run(self, phase: Phase) -> Recording:
        rows = self.objectives.load.rows
        payloads = self._payloads(rows) if rows != self._rows else None
        self._rows, self._ready = rows, 0
        self._recordings, self._progress = [], {}
        generators = self._generators()
        for index, client in enumerate(generators):
            mine = msgspec.structs.replace(phase, index=index, count=len(generators))
            self._runner.send_message(PREPARE, pack(Prepare(mine, self._target, payloads)), client)
        self._wait(lambda: self._ready == len(generators), PREPARE_SECONDS, "get ready")
        self._stats.reset_all()
        self._runner.send_message(START, pack(repr(time.time() + LEAD_SECONDS).encode()))
        seconds = phase.seconds + sum(segment.seconds for segment in phase.segments)
        limit = seconds + self._target.timeout + PREPARE_SECONDS
        self._wait(lambda: len(self._recordings) == len(generators), limit, "report")
        merged = Recording()
        for recording in self._recordings:
            merged.merge(recording)
        return merged

    def _generators(self) -> list[str | None]:
        if isinstance(self._runner, LocalRunner):
            return [None]
        return [node.id for node in self._runner.clients.all if node.state != "missing"]

    def _wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not condition():
            self._changed.clear()
            if not self._changed.wait(min(1.0, end - time.monotonic())) and time.monotonic() > end:
                raise BenchError(f"a generator did not {what} within {seconds:.0f} s")

    def _on_ready(self, **_: Any) -> None:
        self._ready += 1
        self._changed.set()

    def _on_recorded(self, msg: Any, **_: Any) -> None:
        self._recordings.append(Recording.decode(msg.data[BODY]))
        self._changed.set()

    def _on_progress(self, msg: Any, **_: Any) -> None:
        self._progress[msg.node_id] = msgspec.msgpack.decode(msg.data[BODY], type=Progress)
        if len(self._progress) == len(self._generators()):
            self.tell(_line(list(self._progress.values())))
            self._progress.clear()


def _line(parts: Sequence[Progress]) -> str:
    requests, errors, late = (sum(getattr(part, name) for part in parts) for name in ("requests", "errors", "late"))
    p50, p99 = (max(getattr(part, name) for part in parts) / 1000 for name in ("p50", "p99"))
    text = f"{requests:,} requests, {errors:,} errors, p50 {p50:.3g} ms, p99 {p99:.3g} ms in the last second"
    return f"{text}, {late:,} late" if late else text
