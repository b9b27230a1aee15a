"""How values were distributed: counts in bins that the values themselves made."""

from __future__ import annotations

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.bundle.manifest import FeatureSpec

BINS = 20


class Histogram(msgspec.Struct, frozen=True):
    """How one feature was distributed.

    bounds: for a number, the edges of the bins [bins + 1], both ends inclusive; for a category, its values [bins].
    The edges are quantiles of the data. A number that is several of them is frequent: the next larger number is an edge
    too, so that it has a bin of its own.
    counts: rows per bin [bins]. missing: rows without a value.
    """

    bounds: Array
    counts: Array
    missing: int


def histogram(spec: FeatureSpec, column: Array) -> Histogram:
    """The distribution of a feature column, for a text of its length; categories are `str` objects, None if missing."""
    if spec.type == "text":
        column = np.array([len(text) for text in column], np.float64)
    if spec.type == "category":
        present = column[np.array([value is not None for value in column], bool)].astype(str)
        values, counts = np.unique(present, return_counts=True)
        return Histogram(values, counts, len(column) - len(present))
    return of_numbers(column)


def of_numbers(column: Array) -> Histogram:
    """The distribution of numbers; those that are not finite are missing."""
    present = column[np.isfinite(column)].astype(np.float64)
    if not len(present):
        return Histogram(np.empty(0), np.empty(0, np.int64), len(column))
    edges, times = np.unique(np.quantile(present, np.linspace(0, 1, BINS + 1)), return_counts=True)
    with np.errstate(over="ignore"):
        frequent = np.nextafter(edges[times > 1], np.inf)
    edges = np.unique(np.concatenate([edges, frequent[np.isfinite(frequent)]]))
    edges = edges if len(edges) > 1 else np.repeat(edges, 2)
    return Histogram(edges, np.histogram(present, edges)[0], len(column) - len(present))
