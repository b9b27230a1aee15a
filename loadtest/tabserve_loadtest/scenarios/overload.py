"""Send more than can be served: what is still served, how soon the rest is refused, how long recovery takes."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING

from tabserve_loadtest.measured import Measured, rate_of, recovery_seconds
from tabserve_loadtest.recording import Recording
from tabserve_loadtest.schedule import Segment

if TYPE_CHECKING:  # it imports gevent, which patches the process
    from tabserve_loadtest.bench import Bench

SEARCH_USERS = 16
SEARCH_SECONDS = 5.0
CALM_SECONDS = 12.0


def run(bench: Bench) -> Measured:
    """Uses `rate` (what can be served; 0 to find out), `factor`, `seconds` and `rows`.

    Figures: capacity_rps, goodput_rps, goodput_share, refused_share, refusal_p99_ms, retry_after_share, recovery_s.
    Capacity is measured before and after, and is the mean of both, because a machine's speed changes meanwhile.
    """
    load = bench.objectives.load
    bench.warm_up()
    found = load.rate or _capacity(bench)
    segments = (Segment(found * load.factor, load.seconds), Segment(found / 2, CALM_SECONDS))
    recording = bench.open(segments)
    capacity = load.rate or mean((found, _capacity(bench)))
    return Measured(
        f"{load.factor:g} times {found:.4g} requests/s for {load.seconds:g} s, then half; {load.rows} rows each",
        recording,
        figures=_figures(bench, recording, capacity),
        refusals_allowed=True,
        offered=segments,
    )


def _capacity(bench: Bench) -> float:
    """The requests answered per second if enough users wait for answers to keep the server busy."""
    recording = bench.closed(SEARCH_USERS, SEARCH_SECONDS)
    capacity = recording.outcomes["ok"] / recording.elapsed
    bench.tell(f"{capacity:.4g} requests/s can be served")
    return max(1.0, capacity)


def _figures(bench: Bench, recording: Recording, capacity: float) -> dict[str, float]:
    seconds = bench.objectives.load.seconds
    goodput = rate_of(recording, "ok", range(int(seconds)))
    refused = recording.outcomes["refused"]
    quickly = recording.refused.quantile(0.99, bench.plan.confidence)
    recovery = recovery_seconds(recording, seconds, bench.objectives)
    return {
        "capacity_rps": capacity,
        "goodput_rps": goodput,
        "goodput_share": goodput / capacity,
        "refused_share": refused / max(1, recording.outcomes.total()),
        "refusal_p99_ms": quickly.value / 1000 if quickly else 0.0,
        "retry_after_share": recording.counts["retry_after"] / refused if refused else 1.0,
        **({} if recovery is None else {"recovery_s": recovery}),
    }
