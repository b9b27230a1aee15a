"""Latencies as a histogram in microseconds, with three significant digits, exact merging, and bounds on quantiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

from tabserve_loadtest import bounds

LOWEST, HIGHEST, DIGITS = 1, 600_000_000, 3


class Quantile(msgspec.Struct, frozen=True):
    """A quantile of `n` latencies in microseconds, between `low` and `high`, each with the requested confidence.

    high is None if there are too few latencies for a bound.
    """

    q: float
    n: int
    value: int
    low: int
    high: int | None


class Latencies:
    """A histogram of microseconds from 1 µs to 10 minutes, with buckets of at most 0.1 %."""

    def __init__(self, encoded: bytes | None = None) -> None:
        self._histogram = HdrHistogram.decode(encoded, b64_wrap=False) if encoded else _empty()
        self.record = self._histogram.record_value
        """Records one latency in microseconds. It is called for every request, so it is the histogram's own method."""

    @property
    def count(self) -> int:
        """The number of latencies."""
        return int(self._histogram.total_count)

    @property
    def longest(self) -> int:
        """The longest latency in microseconds, 0 if there are none."""
        return int(self._histogram.get_max_value()) if self.count else 0

    def merge(self, other: Latencies) -> None:
        """Add another's latencies; the result is the same as if all had been recorded here."""
        self._histogram.add(other._histogram)

    def encode(self) -> bytes:
        """The compressed form that `Latencies(encoded)` reads (HdrHistogram's V2 encoding)."""
        encoded: bytes = self._histogram.encode()
        return encoded

    def over(self, limit: float) -> int:
        """How many latencies are longer than a limit in microseconds, to the resolution of the buckets."""
        upper, counts = self.buckets()
        return int(counts[upper > self._histogram.get_highest_equivalent_value(math.floor(limit))].sum())

    def buckets(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The longest latency and the count of every bucket that is not empty, ascending."""
        counts = np.ctypeslib.as_array(self._histogram.counts)
        used = np.flatnonzero(counts)
        highest, start = self._histogram.get_highest_equivalent_value, self._histogram.get_value_from_index
        return np.array([highest(start(int(index))) for index in used], np.int64), counts[used].astype(np.int64)

    def at_ranks(self, ranks: Sequence[int]) -> list[int]:
        """The latencies at ranks from 1 (shortest) to `count`."""
        upper, counts = self.buckets()
        return [int(upper[at]) for at in np.searchsorted(np.cumsum(counts), ranks)]

    def quantile(self, q: float, confidence: float) -> Quantile | None:
        """A quantile with a lower and an upper bound, each with this confidence; None if nothing was recorded."""
        n = self.count
        if not n:
            return None
        most, least = (bound(n, 1 - q, confidence) for bound in (bounds.most_over, bounds.least_over))
        ranks = [max(1, math.ceil(round(q * n, 6))), max(1, n - least + 1), n - max(most, 0)]
        value, low, high = self.at_ranks(ranks)
        return Quantile(q, n, value, min(low, value), max(high, value) if most >= 0 else None)

    def quantiles(self, confidence: float) -> list[Quantile]:
        """The usual quantiles p50, p90, p99 and p99.9; empty if nothing was recorded."""
        found = (self.quantile(q, confidence) for q in (0.5, 0.9, 0.99, 0.999))
        return [quantile for quantile in found if quantile is not None]


def _empty() -> HdrHistogram:
    return HdrHistogram(LOWEST, HIGHEST, DIGITS, b64_wrap=False)
