"""Raise the load in one step and lower it again: how soon replicas follow, and what users notice meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeAlias

from tabserve_loadtest.latencies import Latencies
from tabserve_loadtest.measured import Measured, Table, p50_and_p99
from tabserve_loadtest.recording import Recording
from tabserve_loadtest.schedule import Segment
from tabserve_loadtest.verdict import Judgement, Verdict

if TYPE_CHECKING:  # it imports gevent, which patches the process
    from tabserve_loadtest.bench import Bench

Timeline: TypeAlias = dict[str, list[tuple[float, int]]]

ROW_SECONDS = 5
"""How many seconds of the run a row of the timeline's table covers."""


def run(bench: Bench) -> Measured:
    """Uses `rate`, `factor`, `seconds` (for each of low, high, low) and `rows`; replicas need --watch.

    Figures: reaction_s, from the step to the first additional ready replica; replicas_low, replicas_high.
    """
    load = bench.objectives.load
    low, high = Segment(load.rate, load.seconds), Segment(load.rate * load.factor, load.seconds)
    bench.warm_up()
    start = time.time()
    recording = bench.open((low, high, low))
    timeline = bench.replicas(start, 3 * load.seconds)
    return Measured(
        f"{load.rate:g} requests/s, {load.factor:g} times that, and back, {load.seconds:g} s each, Poisson",
        recording,
        figures=figures(timeline, load.seconds),
        tables=(table(recording, timeline),),
        findings=() if timeline else (_unwatched(),),
        offered=(low, high, low),
        replicas=timeline,
    )


def figures(timeline: Timeline, step: float) -> dict[str, float]:
    """The figures for the replicas of all workloads together, after the load went up at `step` seconds."""
    low = sum(at_time(changes, step) for changes in timeline.values())
    times = sorted(at for changes in timeline.values() for at, _ in changes)
    totals = [(at, sum(at_time(changes, at) for changes in timeline.values())) for at in times]
    more = [at for at, total in totals if at > step and total > low]
    found = {"replicas_low": float(low), "replicas_high": float(max((total for _, total in totals), default=0))}
    return found | ({"reaction_s": more[0] - step} if more else {})


def table(recording: Recording, timeline: Timeline) -> Table:
    """The run in steps of a few seconds, with ready replicas at the start and the requests meant to start in each."""
    numbers = range(0, max(recording.seconds, default=-1) + 1, ROW_SECONDS)
    rows = tuple(_row(recording, timeline, first) for first in numbers)
    return Table("Timeline", ("s", *timeline, "requests/s", "p50", "p99", "not ok"), rows)


def _row(recording: Recording, timeline: Timeline, first: int) -> tuple[str, ...]:
    found = [recording.seconds[at] for at in range(first, first + ROW_SECONDS) if at in recording.seconds]
    latencies = Latencies()
    for second in found:
        latencies.merge(second.latencies)
    requests = sum(second.outcomes.total() for second in found)
    bad = requests - sum(second.outcomes["ok"] for second in found)
    replicas = (str(at_time(changes, first)) for changes in timeline.values())
    return (str(first), *replicas, f"{requests / ROW_SECONDS:.1f}", *p50_and_p99(latencies), f"{bad:,}")


def at_time(changes: list[tuple[float, int]], at: float) -> int:
    """The ready replicas at a given time."""
    return next((ready for when, ready in reversed(changes) if when <= at), 0)


def _unwatched() -> Judgement:
    return Judgement("replicas are watched", Verdict.INVALID, "give --watch NAMESPACE/SELECTOR")
