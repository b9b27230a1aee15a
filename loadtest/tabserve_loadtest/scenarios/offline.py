"""Send the largest batches as fast as they are answered, for rows per second (MLPerf's Offline)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabserve_loadtest.measured import Measured

if TYPE_CHECKING:  # it imports gevent, which patches the process
    from tabserve_loadtest.bench import Bench


def run(bench: Bench) -> Measured:
    """Uses `users`, `seconds` and `rows`. Figures: rows_per_s."""
    load = bench.objectives.load
    bench.warm_up()
    recording = bench.closed(load.users, load.seconds)
    return Measured(
        f"{load.users} user(s) with {load.rows} rows per request, for {load.seconds:g} s",
        recording,
        figures={"rows_per_s": recording.counts["rows"] / recording.elapsed},
        closed=True,
    )
