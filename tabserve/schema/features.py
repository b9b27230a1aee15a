"""Turn checked columns into features, and features into the model's matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tabserve.arrays import Array
from tabserve.inference.tensors import holds_any
from tabserve.schema.columns import Columns, Misfit, UnfitError, shown
from tabserve.schema.schema import Derived, Schema
from tabserve.schema.timestamps import DAY

_HOUR = 3_600.0
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
    """The schema's features, in order: columns as they are, and features derived from them.

    Raises InvalidRequest, naming record and feature, where a ratio is beyond the range of FP64.
    """
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
    return _RULES[rule](feature.name, *(columns[source] for source in sources))


def _days_between(_: str, first: Array, second: Array) -> Array:
    return np.asarray((second - first) / DAY)


def _hour(_: str, seconds: Array) -> Array:
    return np.asarray(np.floor(seconds / _HOUR) % 24)


def _weekday(_: str, seconds: Array) -> Array:
    return np.asarray((np.floor(seconds / DAY) + _THURSDAY) % 7)


def _month(_: str, seconds: Array) -> Array:
    missing = np.isnan(seconds)
    days = np.floor(np.where(missing, 0.0, seconds) / DAY).astype("datetime64[D]")
    months = days.astype("datetime64[M]").astype(np.int64) % 12 + 1
    return np.where(missing, np.nan, months.astype(np.float64))


def _ratio(name: str, over: Array, under: Array) -> Array:
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        ratio = np.where(under == 0, np.nan, over / under)
    for record in np.flatnonzero(np.isinf(ratio))[:1].tolist():
        limit = f"{np.finfo(np.float64).max:.3g}"
        raise UnfitError(Misfit(record, name, f"a ratio within ±{limit}", "a larger one"))
    return ratio


def _log(_: str, numbers: Array) -> Array:
    made = np.full(len(numbers), np.nan)
    # The same instructions for every number of rows, whatever lies between the numbers in memory.
    np.log(np.ascontiguousarray(numbers), out=made, where=numbers > 0)
    return made


_RULES: dict[str, Callable[..., Array]] = {
    "days_between": _days_between,
    "hour_of": _hour,
    "weekday_of": _weekday,
    "month_of": _month,
    "ratio": _ratio,
    "log": _log,
}
