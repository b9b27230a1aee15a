"""Counts of a decision log by day: they can be added up, kept, and gone on with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.monitor.columns import Column

FORMAT = 1
BILLION = 10**9
"""What expected hits are counted in, so that their sums are the same in any order."""


class Batch(NamedTuple):
    """Some decisions: days since 1970 [rows], weights [rows], each column's values [rows], by place.

    expected: the calibrated probability of a hit [rows], None if there is no calibration.
    decisions: places in the decisions' names [rows]. groups: each audited field's places in its groups [rows].
    """

    days: Array
    weights: Array
    values: Sequence[Array]
    decisions: Array
    expected: Array | None
    groups: Sequence[Array] = ()


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Counts as they are written. days: by day and weight, the vector. told: alarms that were sent.

    columns: what is counted; empty if it was written before there were segments.
    """

    format: int
    digest: str
    files: list[str]
    days: dict[str, dict[str, list[int]]]
    others: int
    told: list[str]
    shadows: int = 0
    columns: list[str] = []


class Counts:
    """Counts of a log's decisions by day and weight, one vector for each.

    A vector holds the rows, the rows in each cell of each column, expected hits and rows by decision, and for each
    audited field the rows by group and decision. Memory grows with the number of days and of different weights, not
    with that of records. groups: how many each audited field has.
    """

    def __init__(self, columns: Sequence[Column], decisions: int, groups: Sequence[int] = ()) -> None:
        self.columns, self._decisions = columns, decisions
        sizes = [1, *(column.size for column in columns), decisions, decisions, *(each * decisions for each in groups)]
        ends = np.cumsum(sizes).tolist()
        _, *places = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        self._places, (self._hits, self._decided, *self._groups) = places[: len(columns)], places[len(columns) :]
        self._size = ends[-1]
        self._vectors: dict[tuple[int, float], Array] = {}
        self.others = 0
        """Records of other bundles, which are not counted."""
        self.shadows = 0
        """Copies for a shadow, which are not counted either."""

    def add(self, batch: Batch) -> None:
        """Count the decisions of a batch."""
        keys, which = np.unique(np.stack([batch.days, batch.weights]), axis=1, return_inverse=True)
        groups = keys.shape[1]
        made = np.zeros((groups, self._size), np.int64)
        made[:, 0] = np.bincount(which, minlength=groups)
        for column, place, values in zip(self.columns, self._places, batch.values, strict=True):
            made[:, place] = _by_group(which, column.cells(values), groups, column.size)
        made[:, self._decided] = _by_group(which, batch.decisions, groups, self._decisions)
        for place, codes in zip(self._groups, batch.groups, strict=True):
            both = codes * self._decisions + batch.decisions
            made[:, place] = _by_group(which, both, groups, place.stop - place.start)
        if batch.expected is not None:
            hits = np.zeros(groups * self._decisions, np.int64)
            np.add.at(
                hits, which * self._decisions + batch.decisions, np.rint(batch.expected * BILLION).astype(np.int64)
            )
            made[:, self._hits] = hits.reshape(groups, -1)
        for (day, weight), vector in zip(keys.T.tolist(), made, strict=True):
            self._put(int(day), weight, vector)

    def merge(self, other: Counts) -> None:
        """Add what another count of the same columns has."""
        for (day, weight), vector in other._vectors.items():
            self._put(day, weight, vector)
        self.others += other.others
        self.shadows += other.shadows

    def _put(self, day: int, weight: float, vector: Array) -> None:
        key = (day, weight)
        self._vectors[key] = self._vectors[key] + vector if key in self._vectors else vector

    @property
    def rows(self) -> int:
        """The number of records that were counted."""
        return int(sum(vector[0] for vector in self._vectors.values()))

    @property
    def largest(self) -> float:
        """The largest weight of a record."""
        return max(weight for _, weight in self._vectors)

    @property
    def first(self) -> int:
        """The first day with a record."""
        return min(day for day, _ in self._vectors)

    @property
    def last(self) -> int:
        """The last day with a record."""
        return max(day for day, _ in self._vectors)

    def window(self, start: int, end: int) -> Window:
        """The sums from a day to another, which is not included."""
        rows, weighted = np.zeros(self._size, np.int64), np.zeros(self._size)
        for (day, weight), vector in sorted(self._vectors.items(), key=lambda each: each[0]):
            if start <= day < end:
                rows = rows + vector
                weighted = weighted + weight * vector
        return Window(
            [(rows[place], weighted[place]) for place in self._places],
            int(rows[0]),
            float(weighted[0]),
            (rows[self._decided], weighted[self._decided]),
            weighted[self._hits] / BILLION,
            [(rows[at].reshape(-1, self._decisions), weighted[at].reshape(-1, self._decisions)) for at in self._groups],
        )

    def kept(self, digest: str, files: Sequence[str], told: Sequence[str]) -> bytes:
        """The counts as JSON. digest: of the bundle. files: that were counted. told: alarms that were sent."""
        days: dict[str, dict[str, list[int]]] = {}
        for (day, weight), vector in sorted(self._vectors.items()):
            days.setdefault(str(day), {})[repr(weight)] = vector.tolist()
        names = [column.name for column in self.columns]
        kept = Kept(FORMAT, digest, sorted(files), days, self.others, list(told), self.shadows, names)
        return msgspec.json.encode(kept)

    def restore(self, kept: Kept) -> None:
        """Go on from counts of the same bundle. Raises ValueError if they are of other columns."""
        names = [column.name for column in self.columns]
        if kept.columns not in ([], names):
            raise ValueError(f"expected counts of {', '.join(names)}, got {', '.join(kept.columns)}")
        for day, by_weight in kept.days.items():
            for weight, vector in by_weight.items():
                if len(vector) != self._size:
                    raise ValueError(f"expected {self._size} counts for a day, got {len(vector)}")
                self._put(int(day), float(weight), np.array(vector, np.int64))
        self.others += kept.others
        self.shadows += kept.shadows


class Window(NamedTuple):
    """The sums of some days: for each column rows and weight by cell, all rows and their weight.

    decided: rows and weight by decision. expected: calibrated hits by decision, weighted. groups: for each audited
    field rows and weight by group and decision [groups, decisions].
    """

    cells: Sequence[tuple[Array, Array]]
    rows: int
    weight: float
    decided: tuple[Array, Array]
    expected: Array
    groups: Sequence[tuple[Array, Array]]


def _by_group(which: Array, cells: Array, groups: int, size: int) -> Array:
    """How many rows there are [groups, size], by their group and cell [rows]."""
    return np.bincount(which * size + cells, minlength=groups * size).reshape(groups, size)


def read(content: bytes) -> Kept:
    """Counts that `Counts.kept` wrote. Raises ValueError."""
    kept = msgspec.json.decode(content, type=Kept)
    if kept.format != FORMAT:
        raise ValueError(f"expected format {FORMAT}, got {kept.format}")
    return kept


def calibrated(scores: Array, knots: Array) -> Array:
    """The share of hits that isotonic regression expects at each score. knots [2, n]."""
    return np.asarray(np.interp(scores, knots[0], knots[1]))
