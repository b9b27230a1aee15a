"""Send a rate, a multiple of it for a moment, and the rate again: what a spike costs and how soon it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabserve_loadtest.measured import Measured, recovery_seconds
from tabserve_loadtest.schedule import Segment

if TYPE_CHECKING:  # it imports gevent, which patches the process
    from tabserve_loadtest.bench import Bench


def run(bench: Bench) -> Measured:
    """Uses `rate`, `factor`, `seconds` (before and after), `peak_seconds` and `rows`. Figures: recovery_s."""
    load = bench.objectives.load
    calm = Segment(load.rate, load.seconds)
    segments = (calm, Segment(load.rate * load.factor, load.peak_seconds), calm)
    bench.warm_up()
    recording = bench.open(segments)
    recovery = recovery_seconds(recording, load.seconds + load.peak_seconds, bench.objectives)
    return Measured(
        f"{load.rate:g} requests/s, {load.factor:g} times that for {load.peak_seconds:g} s, and back, Poisson",
        recording,
        figures={} if recovery is None else {"recovery_s": recovery},
        offered=segments,
    )
