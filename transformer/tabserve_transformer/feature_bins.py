"""Counts the features of decided records in the bins of the bundle's own histograms, for Prometheus."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import numpy as np

from tabserve.bundle import Bundle
from tabserve.inference.metrics import Counter, Metrics
from tabserve.monitor import columns
from tabserve.monitor.columns import Column
from tabserve.schema.columns import Columns, rows
from tabserve.schema.features import derive

MOST_FEATURES, MOST_BINS = 100, 100
"""With more features nothing is counted; a feature with more bins, which only a category has, is left out."""
FEW = 8
"""Up to how many records are faster one by one than as arrays."""


class FeatureBins:
    """The bins of a bundle's features, and how many decided records were in each."""

    def __init__(self, bundle: Bundle, metrics: Metrics) -> None:
        self._schema = bundle.schema
        found = [each for each in columns.of_bundle(bundle, bundle.schema.feature_names) if each.of == "feature"]
        self._columns = [each for each in found if each.size <= MOST_BINS] if len(found) <= MOST_FEATURES else []
        self._names = [each.names for each in self._columns]
        self._places = [_placing(each) for each in self._columns]
        self._counter = Counter("tabserve_feature_rows", "Records by the bin of a feature", ("feature", "bin"))
        for column, names in zip(self._columns, self._names, strict=True):
            for name in names:
                self._counter.add(column.name, name, count=0)
        metrics.add(self._counter)

    def count(self, record: Columns) -> None:
        """Count records that are decided on, by their fields' columns."""
        if not self._columns:
            return
        features, few = derive(self._schema, record), rows(record) <= FEW
        for column, names, place in zip(self._columns, self._names, self._places, strict=True):
            values = features[column.name]
            if few:
                for value in values.tolist():
                    self._counter.add(column.name, names[place(value)])
            else:
                counts = np.bincount(column.cells(values), minlength=column.size).tolist()
                for name, count in zip(names, counts, strict=True):
                    if count:
                        self._counter.add(column.name, name, count=count)


def _placing(column: Column) -> Callable[[Any], int]:
    """What finds the cell of one value, as `Column.cells` does for many."""
    missing = column.size - 1
    if column.edges is None:
        places = {value: at for at, value in enumerate(column.values)}
        return lambda value: places.get(value, missing)
    edges = column.edges.tolist()

    def place(value: Any) -> int:
        number = len(value) if isinstance(value, str) else value
        if number != number:  # NaN
            return missing
        if edges and number == edges[-1]:  # the last bin includes its end
            return len(edges) - 1
        return bisect_right(edges, number)

    return place
