"""Contributions as one function per feature: a line for a number, a table for a category. No transformer is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tabserve.arrays import Array, Features, rows
from tabserve.bundle.manifest import FeatureSpec
from tabserve.engines import skops_types
from tabserve.engines.contributions.rows import middles, one, replaced

Contributions = Callable[[Features], Array]
"""A function from features to contributions [rows, classes, features + 1], the bias last."""

# Transformers that give a multiple of a number plus a constant, and another constant where it is missing.
_LINES = frozenset({
    "Pipeline", "ColumnTransformer", "FeatureUnion", "StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler",
    "SimpleImputer", "MissingIndicator", "OneHotEncoder", "OrdinalEncoder", "FunctionTransformer",
})  # fmt: skip
_TOLERANCE = 1e-9
_FAR = (-3.3, -0.37, 0.123, 1.7, 12.1, 1000.0)


class Separate:
    """Contributions from a line per number and a table per category.

    A number's line has a slope and goes through `at` at `point`; `missing` is its contribution where it is missing.
    slope, at, missing: [classes, numbers], point: [numbers]. tables: by the category's position, the rows of its values
    in [values, classes].
    """

    def __init__(
        self,
        specs: Sequence[FeatureSpec],
        lines: tuple[Array, Array, Array, Array],
        tables: Mapping[int, tuple[dict[str | None, int], Array]],
        bias: Array,
    ) -> None:
        self._names = [spec.name for spec in specs]
        self._numbers = [at for at, spec in enumerate(specs) if spec.type == "number"]
        self._point, self._slope, self._at, self._missing = lines
        self._tables, self._bias = tables, bias

    def __call__(self, features: Features) -> Array:
        """The contributions [rows, classes, features + 1]. Raises KeyError for a category without an entry."""
        result = np.empty((rows(features), len(self._bias), len(self._names) + 1))
        result[:, :, -1] = self._bias
        if self._numbers:
            numbers = self._matrix(features)
            parts = (numbers - self._point)[:, None, :] * self._slope + self._at
            absent = np.isnan(numbers)
            if absent.any():
                parts = np.where(absent[:, None, :], self._missing, parts)
            result[:, :, self._numbers] = parts
        for at, (places, table) in self._tables.items():
            column = features[self._names[at]] if isinstance(features, dict) else features[:, at]
            result[:, :, at] = table[[places[value] for value in column.tolist()]]
        return result

    def _matrix(self, features: Features) -> Array:
        if isinstance(features, np.ndarray):
            return features if len(self._numbers) == len(self._names) else features[:, self._numbers]
        return np.array([features[self._names[at]] for at in self._numbers], np.float64).T


def separated(whole: Contributions, before: Any, reference: Features, specs: Sequence[FeatureSpec]) -> Separate | None:
    """`whole` as a `Separate`, if every feature's contribution depends only on that feature.

    None if a step before the model is not known to be a line for every number, if there is text, or if a category is
    given as its code. None also if the two differ on the reference rows or beyond them.
    """
    kinds = ("number",) if isinstance(reference, np.ndarray) else ("number", "category")
    if any(spec.type not in kinds for spec in specs):
        return None
    if before is not None and not _of_lines(before):
        return None
    try:
        found = _fitted(whole, reference, specs)
        tried = [reference, *_probes(reference, specs)]
        return found if all(_agree(found(each), whole(each)) for each in tried) else None
    except (ValueError, TypeError, KeyError):
        return None


def _of_lines(before: Any) -> bool:
    found = [part for _, part in skops_types.parts(before) if hasattr(part, "get_params")]
    return all(type(part).__name__ in _LINES and _plain(part) for part in found)


def _plain(part: Any) -> bool:
    """Whether a step is free of encoded numbers, imputed markers that are numbers, functions and clipping."""
    categories = [value for of in getattr(part, "categories_", ()) for value in of.tolist()]
    marker = getattr(part, "missing_values", None)
    texts = all(isinstance(value, str) or value is None or value != value for value in categories)
    clips, function = getattr(part, "clip", False), getattr(part, "func", None)
    return texts and (marker is None or marker != marker) and not clips and function is None


def _fitted(whole: Contributions, reference: Features, specs: Sequence[FeatureSpec]) -> Separate:
    numbers = [at for at, spec in enumerate(specs) if spec.type == "number"]
    point, spread = middles(reference, specs)
    base = one(reference, specs, point)
    at = whole(base)[0]
    slope = (whole(one(reference, specs, point + spread))[0] - at)[:, numbers] / spread
    missing = _where_missing(whole, base, specs, at.shape[0])
    tables = {index: _table(whole, base, spec, index) for index, spec in enumerate(specs) if spec.type == "category"}
    return Separate(specs, (point, slope, at[:, numbers], missing), tables, at[:, -1])


def _where_missing(whole: Contributions, base: Features, specs: Sequence[FeatureSpec], classes: int) -> Array:
    """The contributions of missing numbers [classes, numbers], NaN for a number that can't be missing."""
    found = []
    for at, spec in enumerate(specs):
        if spec.type == "number":
            try:
                found.append(whole(replaced(base, spec.name, at, np.array([np.nan])))[0, :, at])
            except ValueError:
                found.append(np.full(classes, np.nan))
    return np.array(found).reshape(-1, classes).T


def _table(whole: Contributions, base: Features, spec: FeatureSpec, at: int) -> tuple[dict[str | None, int], Array]:
    """The positions of a category's values (with None if it can be missing), and what each value contributes."""
    values: list[str | None] = list(spec.values)
    repeated = {name: np.repeat(column, len(values)) for name, column in base.items()} if isinstance(base, dict) else {}
    table = whole(repeated | {spec.name: np.array(values, object)})[:, :, at]
    try:
        absent = whole(replaced(base, spec.name, at, np.array([None], object)))[:, :, at]
    except (ValueError, TypeError):
        absent = table[:0]
    places = {value: place for place, value in enumerate([*values, None][: len(table) + len(absent)])}
    return places, np.concatenate([table, absent])


def _probes(reference: Features, specs: Sequence[FeatureSpec]) -> Iterator[Features]:
    point, spread = middles(reference, specs)
    for far in _FAR:
        yield one(reference, specs, point + far * spread)


def _agree(found: Array, other: Array) -> bool:
    return bool(np.allclose(found, other, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True))
