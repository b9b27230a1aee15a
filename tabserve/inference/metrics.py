"""Counts and latencies of one process, kept in plain numbers and exposed in Prometheus' format.

Everything is written on the event loop's thread, so nothing is locked; prometheus_client only writes the page, which
may be asked for in another thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate

import numpy as np
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tabserve.arrays import Array

SECONDS = (
    0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
)  # fmt: skip
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 16384)
PROBABILITY = tuple(i / 20 for i in range(1, 21))
LOGIT = (
    0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.97, 0.99, 0.997, 0.999, 0.9997,
    0.9999,
)  # fmt: skip
"""Bounds of probabilities about as far apart in their logit, which also tell rare events' scores apart."""


class Counter:
    """Counts by label values."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str] = ()) -> None:
        self._family = (name, help_text, labels)
        self._counts: dict[tuple[str, ...], float] = {}

    def add(self, *labels: str, count: float = 1) -> None:
        """Add one, or `count`."""
        self._counts[labels] = self._counts.get(labels, 0) + count

    def sums(self, label: int) -> dict[str, float]:
        """The counts by the value of one label, which is given by its place."""
        sums: dict[str, float] = {}
        for values, count in self._counts.copy().items():
            sums[values[label]] = sums.get(values[label], 0) + count
        return sums

    def collect(self) -> Metric:
        """The counts in Prometheus' form."""
        name, help_text, labels = self._family
        family = CounterMetricFamily(name, help_text, labels=labels)
        for values, count in self._counts.copy().items():
            family.add_metric(values, count)
        return family


class Counts:
    """Counts that are kept elsewhere, by the value of one label, read when the page is asked for."""

    def __init__(self, name: str, help_text: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        self._family = (name, help_text, [label])
        self._read = read

    def collect(self) -> Metric:
        """The counts in Prometheus' form."""
        name, help_text, labels = self._family
        family = CounterMetricFamily(name, help_text, labels=labels)
        for value, count in self._read().items():
            family.add_metric([value], count)
        return family


class Gauge:
    """A value that goes up and down, read when the page is asked for."""

    def __init__(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        self._family = (name, help_text)
        self._read = read

    def collect(self) -> Metric:
        """The value in Prometheus' form."""
        return GaugeMetricFamily(*self._family, value=self._read())


class Histogram:
    """Observations by bucket, for each set of label values."""

    def __init__(self, name: str, help_text: str, bounds: Sequence[float], labels: Sequence[str] = ()) -> None:
        self._family = (name, help_text, labels)
        self._bounds = bounds
        self._series: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}

    def observe(self, value: float, *labels: str) -> None:
        """Add one observation."""
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = ([0] * (len(self._bounds) + 1), [0.0])
        series[0][bisect_left(self._bounds, value)] += 1
        series[1][0] += value

    def observe_all(self, values: Array, *labels: str) -> None:
        """Add an observation for each number of a one-dimensional array."""
        if len(values) == 1:  # faster than numpy
            self.observe(values.item(), *labels)
            return
        counts, total = self._series.setdefault(labels, ([0] * (len(self._bounds) + 1), [0.0]))
        for bucket, count in enumerate(np.bincount(np.searchsorted(self._bounds, values)).tolist()):
            counts[bucket] += count
        total[0] += float(values.sum())

    def quantile(self, share: float) -> float | None:
        """The quantile of all observations, straight between a bucket's bounds as Prometheus has it; None without any.

        Beyond the last bound it is that bound.
        """
        series = [buckets for buckets, _ in self._series.copy().values()]
        counts = [sum(each[at] for each in series) for at in range(len(self._bounds) + 1)]
        wanted, below, low = share * sum(counts), 0, 0.0
        for bound, count in zip(self._bounds, counts, strict=False):
            if count and below + count >= wanted:
                return low + (bound - low) * (wanted - below) / count
            below, low = below + count, bound
        return low if any(counts) else None

    def collect(self) -> Metric:
        """The buckets in Prometheus' form."""
        name, help_text, labels = self._family
        family = HistogramMetricFamily(name, help_text, labels=labels)
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for values, (counts, (total,)) in self._series.copy().items():
            family.add_metric(values, list(zip(bounds, accumulate(counts), strict=True)), total)
        return family


class Info:
    """Facts that do not change while the process runs."""

    def __init__(self, name: str, help_text: str, facts: dict[str, str]) -> None:
        self._family = (name, help_text)
        self._facts = facts

    def collect(self) -> Metric:
        """The facts as labels of one sample with the value 1."""
        return InfoMetricFamily(*self._family, value=self._facts)


Instrument = Counter | Counts | Gauge | Histogram | Info


class _Page(Collector):
    def __init__(self, instruments: Sequence[Instrument]) -> None:
        self._instruments = instruments

    def collect(self) -> Iterable[Metric]:
        return [instrument.collect() for instrument in self._instruments]


class Metrics:
    """The server's metrics of every request; a model adds its own instruments."""

    def __init__(self) -> None:
        self.requests = Counter("tabserve_requests", "Requests answered", ("protocol", "status", "arm"))
        self.seconds = Histogram(
            "tabserve_request_seconds", "From a request's headers to its answer", SECONDS, ("protocol", "arm")
        )
        self.rejected = Counter("tabserve_requests_rejected", "Requests refused by admission", ("protocol",))
        self._instruments: list[Instrument] = [self.requests, self.seconds, self.rejected]

    def add(self, *instruments: Instrument) -> None:
        """Show further instruments on the page."""
        self._instruments.extend(instruments)

    def figures(self) -> dict[str, float | None]:
        """What was answered since the start, in a few numbers: requests by outcome, and latencies in milliseconds."""
        by_status = self.requests.sums(1)
        quantiles = {f"p{share * 100:g}_ms": self.seconds.quantile(share) for share in (0.5, 0.99)}
        return {
            "requests": sum(by_status.values()),
            "refused": sum(count for status, count in by_status.items() if status.startswith("4")),
            "failed": sum(count for status, count in by_status.items() if status.startswith("5")),
            **{name: None if seconds is None else round(seconds * 1000, 4) for name, seconds in quantiles.items()},
        }

    def page(self) -> bytes:
        """The page in Prometheus' text format."""
        registry = CollectorRegistry()
        registry.register(_Page(self._instruments))
        ProcessCollector(registry=registry)
        return generate_latest(registry)
