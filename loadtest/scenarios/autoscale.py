"""Load goes up in one step and down again: how soon replicas follow, and what users notice meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeAlias

from loadtest.measured import Measured
from loadtest.schedule import Segment
from loadtest.verdict import Finding, Verdict

if TYPE_CHECKING:
    from loadtest.bench import Bench

Timeline: TypeAlias = dict[str, list[tuple[float, int]]]


def run(bench: Bench) -> Measured:
    """Uses `rate`, `factor`, `seconds` (of each of: low, high, low) and `rows`; replicas need --watch.

    Figures: reaction_s, from the step up to the first ready replica more; replicas_low, replicas_high.
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
        findings=() if timeline else (_unwatched(),),
        offered=(low, high, low),
        replicas=timeline,
    )


def figures(timeline: Timeline, step: float) -> dict[str, float]:
    """What the replicas of all workloads together did when the load went up after `step` seconds."""
    low = sum(at_time(changes, step) for changes in timeline.values())
    times = sorted(at for changes in timeline.values() for at, _ in changes)
    totals = [(at, sum(at_time(changes, at) for changes in timeline.values())) for at in times]
    more = [at for at, total in totals if at > step and total > low]
    found = {"replicas_low": float(low), "replicas_high": float(max((total for _, total in totals), default=0))}
    return found | ({"reaction_s": more[0] - step} if more else {})


def at_time(changes: list[tuple[float, int]], at: float) -> int:
    """The ready replicas at a time."""
    return next((ready for when, ready in reversed(changes) if when <= at), 0)


def _unwatched() -> Finding:
    return Finding("replicas are watched", Verdict.INVALID, "give --watch NAMESPACE/SELECTOR")
