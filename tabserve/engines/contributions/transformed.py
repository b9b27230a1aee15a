"""Do the arithmetic of a pipeline's transformers, bit for bit, without calling scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from tabserve.arrays import Array, Features, rows
from tabserve.bundle.manifest import FeatureSpec
from tabserve.engines.contributions.rows import middles, one, replaced

Transform: TypeAlias = Callable[[Features], Array]
"""A function from features to transformed features [rows, transformed]."""
_Step: TypeAlias = Callable[[Array], Array]

_FAR = (-3.3, -0.37, 0.0, 0.123, 1.7, 12.1, 1000.0)


class Unknown(ValueError):
    """A transformer's arithmetic is not implemented here."""


class Transformed:
    """Steps of arithmetic for numbers, a table for each category, and constants.

    chains: the positions of numbers among the features, those of their results, and the steps between. tables: by the
    category's position, the rows of its values in the table, the table [values, columns], and the columns' positions.
    """

    def __init__(
        self,
        specs: Sequence[FeatureSpec],
        chains: Sequence[tuple[list[int], list[int], list[_Step]]],
        tables: Mapping[int, tuple[dict[str | None, int], Array, Array]],
        same: Array,
    ) -> None:
        self._names = [spec.name for spec in specs]
        self._chains, self._tables, self._same = chains, tables, same

    def __call__(self, features: Features) -> Array:
        """The transformed features [rows, transformed]. Raises KeyError for a category without an entry."""
        result = np.empty((rows(features), len(self._same)))
        result[:] = self._same
        for taken, made, steps in self._chains:
            if isinstance(features, dict):
                part = np.array([features[self._names[at]] for at in taken], np.float64).T
            else:
                part = features[:, taken]
            for step in steps:
                part = step(part)
            result[:, made] = part
        for at, (places, table, made_of) in self._tables.items():
            column = features[self._names[at]] if isinstance(features, dict) else features[:, at]
            result[:, made_of] = table[[places[value] for value in column.tolist()]]
        return result


def written(
    whole: Transform, before: Any, owned: Array, reference: Features, specs: Sequence[FeatureSpec]
) -> Transformed | None:
    """`whole`, the transform of a fitted pipeline, as a `Transformed`.

    None if a step is not known, or if a bit differs on the reference rows or beyond them. owned: which transformed
    features come from which feature, [transformed, features].
    """
    kinds = ("number",) if isinstance(reference, np.ndarray) else ("number", "category")
    if any(spec.type not in kinds for spec in specs):
        return None
    try:
        found = _written(whole, before, owned, reference, specs)
        tried = [reference, *_probes(reference, specs)]
        same = all(np.array_equal(found(each), whole(each), equal_nan=True) for each in tried)
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
    return found if same else None


def _written(
    whole: Transform, before: Any, owned: Array, reference: Features, specs: Sequence[FeatureSpec]
) -> Transformed:
    point, _ = middles(reference, specs)
    base = one(reference, specs, point)
    tables = {
        at: _table(whole, base, spec, np.flatnonzero(owned[:, at]))
        for at, spec in enumerate(specs)
        if spec.type == "category"
    }
    numbers = [at for at, spec in enumerate(specs) if spec.type == "number"]
    chains = list(_chains(before, [spec.name for spec in specs], numbers, owned.shape[0]))
    return Transformed(specs, chains, tables, whole(base)[0])


def _table(
    whole: Transform, base: Features, spec: FeatureSpec, made: Array
) -> tuple[dict[str | None, int], Array, Array]:
    parts, values = [], [*spec.values, None]
    for value in values:
        try:
            parts.append(whole(replaced(base, spec.name, 0, np.array([value], object)))[0, made])
        except (ValueError, TypeError):
            if value is not None:  # None if the category can't be missing
                raise
    return {value: place for place, value in enumerate(values[: len(parts)])}, np.array(parts), made


def _chains(
    before: Any, names: list[str], numbers: list[int], width: int
) -> Iterator[tuple[list[int], list[int], list[_Step]]]:
    """The positions of numbers and of their results, and the steps between."""
    first, *others = _flat(before)
    if type(first).__name__ != "ColumnTransformer":
        if len(numbers) == len(names) == width:
            yield numbers, numbers, [made for step in (first, *others) for made in _steps(step, numbers)]
        return
    for name, step, columns in first.transformers_:
        made = list(range(width))[first.output_indices_[name]]
        taken = [at if isinstance(at, int) else names.index(at) for at in _listed(columns)]
        if made and set(taken) <= set(numbers):
            if len(made) != len(taken):
                raise Unknown(name)
            steps = [
                *_steps(step, list(range(len(taken)))),
                *(each for other in others for each in _steps(other, made)),
            ]
            yield taken, made, steps


def _flat(step: Any) -> list[Any]:
    """The steps of a pipeline, including those of pipelines inside it."""
    return [inner for _, each in step.steps for inner in _flat(each)] if hasattr(step, "steps") else [step]


def _listed(columns: Any) -> list[Any]:
    return [columns] if isinstance(columns, str) else np.asarray(columns).tolist()


def _steps(step: Any, at: list[int]) -> list[_Step]:
    """The arithmetic of a transformer, as scikit-learn does it, on the columns at these positions.

    Raises Unknown.
    """
    kind = step if isinstance(step, str) else type(step).__name__
    if kind == "Pipeline":
        return [made for inner in _flat(step) for made in _steps(inner, at)]
    if kind == "passthrough" or (kind == "FunctionTransformer" and step.func is None):
        return []
    if kind == "StandardScaler":
        return [*_by(np.subtract, step.mean_, at, used=step.with_mean), *_by(np.divide, step.scale_, at)]
    if kind == "MinMaxScaler" and not step.clip:
        return [*_by(np.multiply, step.scale_, at), *_by(np.add, step.min_, at)]
    if kind == "MaxAbsScaler":
        return _by(np.divide, step.scale_, at)
    if kind == "RobustScaler":
        return [*_by(np.subtract, step.center_, at), *_by(np.divide, step.scale_, at)]
    if kind == "SimpleImputer" and step.missing_values != step.missing_values and not step.add_indicator:
        filled = step.statistics_[at].astype(np.float64)
        return [lambda part: np.where(np.isnan(part), filled, part)]
    raise Unknown(kind)


def _by(
    operation: Callable[[Array, Array], Array], values: Array | None, at: list[int], *, used: bool = True
) -> list[_Step]:
    if values is None or not used:
        return []
    chosen = values[at]
    return [lambda part: operation(part, chosen)]


def _probes(reference: Features, specs: Sequence[FeatureSpec]) -> Iterator[Features]:
    point, spread = middles(reference, specs)
    for far in _FAR:
        yield one(reference, specs, point + far * spread)
