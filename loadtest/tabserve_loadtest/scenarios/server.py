"""Send Poisson arrivals at a rate, for the latency that users of a service see (MLPerf's Server)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabserve_loadtest.measured import Measured
from tabserve_loadtest.schedule import Segment

if TYPE_CHECKING:  # it imports gevent, which patches the process
    from tabserve_loadtest.bench import Bench


def run(bench: Bench) -> Measured:
    """Uses `rate`, `seconds` and `rows`."""
    load = bench.objectives.load
    segments = (Segment(load.rate, load.seconds),)
    bench.warm_up()
    recording = bench.open(segments)
    return Measured(f"{load.rate:g} requests/s for {load.seconds:g} s, Poisson", recording, offered=segments)
