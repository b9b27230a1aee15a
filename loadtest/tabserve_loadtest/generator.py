"""The part of every generating process in a run: get ready, send by the schedule, report what was measured."""

from __future__ import annotations

import gc
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import msgspec
from locust.env import Environment
from locust.runners import LocalRunner, WorkerRunner

from tabserve_loadtest import schedule
from tabserve_loadtest.dispatch import Dispatch
from tabserve_loadtest.phases import BODY, PREPARE, PROGRESS, READY, RECORDED, START, Phase, Prepare, Progress, pack
from tabserve_loadtest.recording import ERRORS, Recording
from tabserve_loadtest.stock import Stock
from tabserve_loadtest.users import Caller, Work

PROGRESS_SECONDS = 2.0
LATE_MICROSECONDS = 5000
GRACE_SECONDS = 5.0


class Generator:
    """Listens to the process in charge, this one or another, and sends requests."""

    def __init__(self, environment: Environment, dispatch: Dispatch) -> None:
        runner = environment.runner
        assert isinstance(runner, LocalRunner | WorkerRunner)
        self._runner = runner
        self._dispatch = dispatch
        self._prepared: Prepare | None = None
        runner.register_message(PREPARE, self._prepare)
        runner.register_message(START, self._start)

    def _prepare(self, msg: Any, **_: Any) -> None:
        prepare = msgspec.msgpack.decode(msg.data[BODY], type=Prepare)
        if prepare.payloads is not None:
            Caller.work = Work(self._dispatch, prepare.target, prepare.payloads)
            Stock.request = prepare.payloads[0].data
        self._prepared = prepare
        self._runner.send_message(READY, pack(b""))

    def _start(self, msg: Any, **_: Any) -> None:
        assert self._prepared is not None
        gevent.spawn(self._run, self._prepared, float(msg.data[BODY]))

    def _run(self, prepare: Prepare, at: float) -> None:
        """Send one phase's requests, from `at` (seconds since 1970) on."""
        phase, recording = prepare.phase, Recording()
        # A garbage collection in the middle of a run would count as the server's latency.
        gc.collect()
        gc.freeze()
        gc.disable()
        origin = time.monotonic_ns() + int((at - time.time()) * 1e9)
        meter = _Meter()
        self._send(phase, origin, recording)
        progress = gevent.spawn(self._report_progress, recording)
        seconds = phase.seconds + sum(segment.seconds for segment in phase.segments)
        if not self._dispatch.wait(at - time.time() + seconds + prepare.target.timeout + GRACE_SECONDS):
            recording.error(f"timeout: {self._dispatch.in_flight} requests did not end")
        progress.kill()
        recording.elapsed = (time.monotonic_ns() - origin) / 1e9
        recording.busy = meter.share()
        gc.enable()
        self._runner.send_message(RECORDED, pack(recording.encode()))

    def _send(self, phase: Phase, origin: int, recording: Recording) -> None:
        if phase.users:
            gevent.sleep(max(0.0, (origin - time.monotonic_ns()) / 1e9))
            mine = phase.users // phase.count + (phase.index < phase.users % phase.count)
            self._dispatch.close_loop(mine, phase.seconds, recording)
            return
        offsets = schedule.arrivals(phase.process, phase.segments, phase.seed)
        numbers = range(len(offsets))[phase.index :: phase.count]
        self._dispatch.open(schedule.share(offsets, phase.index, phase.count), numbers, origin, recording)

    def _report_progress(self, recording: Recording) -> None:
        while True:
            gevent.sleep(PROGRESS_SECONDS)
            self._runner.send_message(PROGRESS, pack(_progress(recording)))


def _progress(recording: Recording) -> Progress:
    outcomes = recording.outcomes
    last = recording.seconds.get(max(recording.seconds, default=0) - 1)
    p50, p99 = (last.latencies.quantile(q, 0.99) if last else None for q in (0.5, 0.99))
    return Progress(
        outcomes.total(),
        sum(outcomes[kind] for kind in ERRORS),
        recording.late.over(LATE_MICROSECONDS),
        p50.value if p50 else 0,
        p99.value if p99 else 0,
    )


class _Meter:
    """Measures how much of the time this process computed, or waited for a core."""

    def __init__(self) -> None:
        self._wall, self._used = time.monotonic(), _used()

    def share(self) -> float:
        """The share of the time since the start, between 0 and 1."""
        return min(1.0, (_used() - self._used) / (time.monotonic() - self._wall))


def _used() -> float:
    waited = 0
    with suppress(OSError, ValueError, IndexError):  # not every kernel has it
        # The second field: nanoseconds the main thread waited on a run queue
        # (kernel: Documentation/scheduler/sched-stats.rst).
        waited = int(Path("/proc/self/schedstat").read_text().split()[1])
    return time.process_time() + waited / 1e9
