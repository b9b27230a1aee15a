"""The metrics of a stream."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable

import numpy as np

from tabserve.arrays import Array
from tabserve.inference.metrics import Counter, Gauge, Histogram, Info, Metrics
from tabserve.stream.deciding import Poll

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)


class Instruments:
    """Counts what is committed. lag: how many records wait."""

    def __init__(self, metrics: Metrics, facts: dict[str, str], lag: Callable[[], float]) -> None:
        self._records = Counter("tabserve_stream_records", "Records by what became of them", ("result",))
        for result in ("decided", "dead"):
            self._records.add(result, count=0)
        self._decisions = Counter("tabserve_decisions", "Records by decision", ("decision",))
        self._seconds = Histogram("tabserve_stream_seconds", "From a record's own time to its commit", SECONDS)
        metrics.add(
            self._records,
            self._decisions,
            self._seconds,
            Gauge("tabserve_stream_lag", "Records that wait in the partitions of this member", lag),
            Info("tabserve_model", "The model served", facts),
        )

    def committed(self, poll: Poll, seconds: Array) -> None:
        """Count a poll. seconds: what each of its records took [rows], NaN where that is not known."""
        self._records.add("decided", count=poll.decided)
        self._records.add("dead", count=len(poll.outgoing) - poll.decided)
        known = seconds[~np.isnan(seconds)]
        if len(known):
            self._seconds.observe_all(known)
        for part in poll.parts:
            decided = part.made.answer.arrays.get("decision")
            for decision, count in Tally([] if decided is None else decided.tolist()).items():
                self._decisions.add(decision, count=count)
