"""Turn checked columns into features, and features into the model's matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tabserve.arrays import Array
from tabserve.inference.tensors import holds_any
from tabserve.schema.columns import Columns, Misfit, UnfitError, shown
from tabserve.schema.schema import Derived, Schema

_DAY, _HOUR = 86_400.0, 3_600.0
_THURSDAY = 3
"""The weekday of 1970-01-01, where Monday is 0."""


class Feature(Protocol):
    """What a matrix needs to know about a feature; `values` are a category's, in the order of their codes."""

    @property
    def name(self) -> str:
        """The feature's key."""

    @property
    def type(self) -> str:
        """The feature's type, `number`, `category` or `text`; a matrix holds no text."""

    @property
    def values(self) -> tuple[str, ...]:
        """The categories, in the order of their codes."""


def derive(schema: Schema, columns: Columns) -> Columns:
    """The schema's features, in order: columns as they are, and features derived from timestamps."""
    made: Columns = {}
    for feature in schema.features:
        if isinstance(feature, str):
            made[feature] = columns[feature]
        else:
            made[feature.name] = _derived(feature, columns)
    return made


def matrix(features: Mapping[str, Array], specs: Sequence[Feature], dtype: npt.DTypeLike) -> Array:
    """The features as one matrix [rows, len(specs)]: numbers, and categories as their codes; NaN where missing.

    A category that is not one of the spec's values is missing too. Raises UnfitError, naming record and feature,
    where a finite number is beyond the range of `dtype`.
    """
    columns = [codes(features[s.name], s.values) if s.type == "category" else features[s.name] for s in specs]
    with np.errstate(over="ignore"):
        result = np.concatenate(columns).reshape(len(specs), -1).T.astype(dtype, order="C")
    overflown = np.isinf(result)
    if holds_any(overflown):
        record, index = np.argwhere(overflown)[0].tolist()
        name = specs[index].name
        limit = f"{np.finfo(result.dtype).max:.3g}"
        got = shown(float(features[name][record]))
        raise UnfitError(Misfit(record, name, f"a number within ±{limit}", got))
    return result


def codes(column: Array, values: tuple[str, ...]) -> list[float]:
    """The position of each category in the values; NaN if it is missing or not one of them."""
    code, missing = _codes(values).get, np.nan
    return [code(value, missing) for value in column.tolist()]


@lru_cache(maxsize=1024)
def _codes(values: tuple[str, ...]) -> dict[Any, float]:
    return {value: float(code) for code, value in enumerate(values)}


def _derived(feature: Derived, columns: Columns) -> Array:
    ((rule, sources),) = feature.rules.items()
    if rule == "days_between":
        return np.asarray((columns[sources[1]] - columns[sources[0]]) / _DAY)
    seconds = columns[sources[0]]
    if rule == "hour_of":
        return np.asarray(np.floor(seconds / _HOUR) % 24)
    return np.asarray((np.floor(seconds / _DAY) + _THURSDAY) % 7)
