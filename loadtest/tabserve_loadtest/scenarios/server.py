"""Poisson arrivals at a rate: the latency users of a service see (MLPerf's Server)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabserve_loadtest.measured import Measured
from tabserve_loadtest.schedule import Segment

if TYPE_CHECKING:  # it brings gevent, which changes the process that imports it
    from tabserve_loadtest.bench import Bench


def run(bench: Bench) -> Measured:
    """Uses `rate`, `seconds` and `rows`."""
    load = bench.objectives.load
    segments = (Segment(load.rate, load.seconds),)
    bench.warm_up()
    recording = bench.open(segments)
    return Measured(f"{load.rate:g} requests/s for {load.seconds:g} s, Poisson", recording, offered=segments)
