"""Send one request after the other, for latency without any queueing (MLPerf's SingleStream)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabserve_loadtest.measured import Measured

if TYPE_CHECKING:  # it imports gevent, which patches the process
    from tabserve_loadtest.bench import Bench


def run(bench: Bench) -> Measured:
    """Uses `users`, `seconds` and `rows`."""
    load = bench.objectives.load
    bench.warm_up()
    recording = bench.closed(load.users, load.seconds)
    return Measured(f"{load.users} user(s), one request after the other, for {load.seconds:g} s", recording)
