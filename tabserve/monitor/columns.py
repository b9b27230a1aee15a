"""What is compared: each feature, the score and the decision, in the cells of the bundle's histograms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.bundle import Bundle, agreement, evaluation
from tabserve.bundle.evaluation import WITHOUT
from tabserve.bundle.histogram import Histogram
from tabserve.bundle.manifest import FeatureSpec
from tabserve.bundle.tensors import class_names
from tabserve.monitor.bands import FEWEST
from tabserve.schema.groups import Grouped
from tabserve.schema.schema import Derived

SCORE, DECISION = "score", "decision"
_CALENDAR = {"hour_of", "weekday_of", "month_of"}
"""Rules of features that go with the calendar, so that no day or week is like the reference. They are only shown."""


class Column(msgspec.Struct, frozen=True):
    """A feature, the score or the decision.

    of: `feature`, `score` or `decision`. edges: of the bins of a number; None for a category. values: of a category.
    reference: rows by cell. For a number the cells are below the first edge, the bins, above the last edge, missing;
    for a category its values, missing. may_miss: whether a value may be missing.
    judged: whether a change is an alarm; without, it is only shown.
    segment: a field and the place of one of its groups, of which the score or the decision is; None for all records.
    For a segment all other records count as missing.
    """

    name: str
    of: str
    reference: Array
    edges: Array | None = None
    values: tuple[str, ...] = ()
    may_miss: bool = False
    judged: bool = True
    segment: tuple[str, int] | None = None

    @property
    def size(self) -> int:
        """The number of cells."""
        return len(self.reference)

    @property
    def comparable(self) -> bool:
        """Whether the cells can show a change of the values."""
        return self.size > (4 if self.edges is not None else 2) and self.reference[:-1].sum() > 0

    @property
    def log_events(self) -> float:
        """The logarithm of how many events the distance is the largest difference over: edges, or sets of values."""
        return math.log(len(self.edges)) if self.edges is not None else (len(self.values) - 1) * math.log(2)

    @property
    def names(self) -> list[str]:
        """The names of the cells."""
        if self.edges is None:
            return [*self.values, "missing"]
        if not len(self.edges):
            return ["any", "missing"]
        edges = [f"{edge:.6g}" for edge in self.edges.tolist()]
        bins = [f"{low} to {high}" for low, high in pairwise(edges)]
        return [f"below {edges[0]}", *bins, f"above {edges[-1]}", "missing"]

    def cells(self, column: Array) -> Array:
        """The cell of each value [rows]; a category's values are `str` objects, and of a text its length counts."""
        if self.edges is None:
            places = {value: at for at, value in enumerate(self.values)}
            missing = len(self.values)
            return np.array([places.get(value, missing) for value in column.tolist()], np.intp)
        if column.dtype == object:
            column = np.array([len(text) for text in column.tolist()], np.float64)
        if not len(self.edges):
            return np.isnan(column).astype(np.intp)
        found = np.searchsorted(self.edges, column, side="right")
        found = np.where(column == self.edges[-1], len(self.edges) - 1, found)
        return np.where(np.isnan(column), len(self.edges) + 1, found)

    def distance(self, now: Array, reference: Array) -> Array:
        """How far the values' distributions are apart [...], from rows or weights by cell [..., cells].

        For a number it is the largest difference of the distribution functions at an edge (Kolmogorov-Smirnov). For a
        category it is the total variation, which is the largest difference of the shares of any set of values.
        NaN where there is no value.
        """
        differences = shares(now[..., :-1]) - shares(reference[..., :-1])
        if self.edges is None:
            return np.asarray(np.abs(differences).sum(axis=-1) / 2)
        return np.asarray(np.abs(differences.cumsum(axis=-1)[..., :-1]).max(axis=-1))


def shares(cells: Array) -> Array:
    """Each cell's part of the whole [..., cells]; NaN where there is nothing."""
    with np.errstate(invalid="ignore"):
        return np.asarray(cells / cells.sum(axis=-1, keepdims=True))


def psi(now: Array, reference: Array) -> float:
    """The population stability index over cells; an empty one counts as one row in ten thousand.

    It grows as rows get fewer, so it is shown and never judged.
    """
    first, second = (np.maximum(shares(each), 1e-4) for each in (now, reference))
    return float(((first - second) * np.log(first / second)).sum())


def of_bundle(bundle: Bundle, logged: Sequence[str]) -> list[Column]:
    """The columns of a bundle that a log can be compared with. logged: the features that it holds."""
    found, schema = [], bundle.schema
    calendar = {each.name for each in schema.features if isinstance(each, Derived) and _CALENDAR & each.rules.keys()}
    for spec in agreement.specs(schema):
        histogram = bundle.reference.histograms.get(spec.name)
        if histogram is not None and spec.name in logged:
            column = _feature(spec, histogram, spec.name in schema.may_miss)
            found.append(msgspec.structs.replace(column, judged=spec.name not in calendar))
    evaluated = bundle.reference.evaluation
    if evaluated is None:
        return found
    if evaluated.scores is not None and len(evaluated.scores.bounds):
        cells = _number_cells(evaluated.scores)
        found.append(Column(SCORE, SCORE, cells, evaluated.scores.bounds, judged=evaluated.held_out))
    names = evaluation.decision_names(schema, class_names(bundle))
    if names != (WITHOUT,):
        counts = _category_cells(evaluated.decisions, names)
        found.append(Column(DECISION, DECISION, counts, values=names, judged=evaluated.held_out))
    return found


def of_segments(bundle: Bundle, fields: Sequence[Grouped]) -> list[Column]:
    """The score and the decision in each group of some fields, where the reference has enough rows to judge it."""
    evaluated = bundle.reference.evaluation
    if evaluated is None:
        return []
    names = evaluation.decision_names(bundle.schema, class_names(bundle))
    found = []
    for field in fields:
        segment = evaluated.segments[field.field.name]
        for at, (scores, decisions) in enumerate(zip(segment.scores, segment.decisions, strict=True)):
            where, place = f"where {field.field.name} is {field.groups[at]}", (field.field.name, at)
            inside = int(decisions.sum())
            outside, judged = evaluated.rows - inside, evaluated.held_out
            if inside < FEWEST:
                continue
            if evaluated.scores is not None and len(scores):
                cells = np.array([0, *scores.tolist(), 0, outside])
                edges = evaluated.scores.bounds
                found.append(Column(f"{SCORE} {where}", SCORE, cells, edges, judged=judged, segment=place))
            if names != (WITHOUT,):
                cells = np.append(decisions, outside)
                found.append(Column(f"{DECISION} {where}", DECISION, cells, values=names, judged=judged, segment=place))
    return found


def _feature(spec: FeatureSpec, histogram: Histogram, may_miss: bool) -> Column:
    if spec.type == "category":
        cells = _category_cells(histogram, spec.values)
        return Column(spec.name, "feature", cells, values=spec.values, may_miss=may_miss)
    return Column(spec.name, "feature", _number_cells(histogram), histogram.bounds, may_miss=may_miss)


def _number_cells(histogram: Histogram) -> Array:
    if not len(histogram.bounds):
        return np.array([0, histogram.missing])
    return np.array([0, *histogram.counts.tolist(), 0, histogram.missing])


def _category_cells(histogram: Histogram, values: Sequence[str]) -> Array:
    counts: Mapping[str, int] = dict(zip(histogram.bounds.tolist(), histogram.counts.tolist(), strict=True))
    return np.array([*(counts.get(value, 0) for value in values), histogram.missing])
