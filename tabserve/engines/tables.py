"""Turn features into the table an estimator was trained on, with every column in the dtype it had then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tabserve.arrays import Array, Features
from tabserve.bundle.manifest import FeatureSpec

_NULLABLE = {"Int64": np.int64, "Float64": np.float64, "boolean": np.bool_}
_MARKERS = {"nan": float("nan"), "none": None}


def table(specs: Sequence[FeatureSpec], frame: str) -> Callable[[Features], Any]:
    """A function from features to a DataFrame with the specs' names and dtypes, or to an array of the same values.

    frame: `object` or `category`, the dtype of a category whose spec names none; `array` for an array of objects.
    """
    import pandas

    names = [spec.name for spec in specs]
    columns = [_column(spec, frame) for spec in specs]
    plain = all(not spec.is_text and spec.dtype in ("", "float64") for spec in specs)

    def made(given: Features) -> Any:
        if plain and isinstance(given, np.ndarray):
            return pandas.DataFrame(given, columns=names)
        parts = given.T if isinstance(given, np.ndarray) else [given[name] for name in names]
        return pandas.DataFrame({name: column(part) for name, column, part in zip(names, columns, parts, strict=True)})

    if frame == "array":
        return lambda given: made(given).to_numpy(object)
    return made


def _column(spec: FeatureSpec, frame: str) -> Callable[[Array], Any]:
    """A function from one feature (numbers as floats, or words) to a column."""
    import pandas

    marker = _MARKERS[spec.missing]
    if spec.is_text:
        dtype = spec.dtype or ("category" if frame == "category" and spec.type == "category" else "object")
        if dtype == "category":
            return lambda texts: pandas.Categorical(texts, list(spec.values))
        if dtype == "string":
            return lambda texts: pandas.Series(texts, dtype="string")
        return lambda texts: pandas.Series(_marked(texts, marker), dtype=object)
    return _numbers(spec.dtype, marker)


def _numbers(dtype: str, marker: Any) -> Callable[[Array], Any]:
    import pandas

    if dtype in ("", "float64", "float32"):
        return lambda numbers: numbers.astype(dtype or np.float64, copy=False)
    if dtype in _NULLABLE:
        return lambda numbers: pandas.Series(_objects(numbers, _NULLABLE[dtype]), dtype=dtype)
    kind = np.dtype(dtype.removeprefix("object[").removesuffix("]"))

    def typed(numbers: Array) -> Any:
        # numpy's integers and booleans can't hold a missing value, so the column becomes one of objects.
        if dtype.startswith("object[") or np.isnan(numbers).any():
            return pandas.Series(_marked(_objects(numbers, kind), marker), dtype=object)
        return numbers.astype(kind)

    return typed


def _objects(numbers: Array, kind: Any) -> Array:
    """Numbers as Python objects, None where missing."""
    missing = np.isnan(numbers)
    objects = np.where(missing, 0, numbers).astype(kind).astype(object)
    objects[missing] = None
    return objects


def _marked(values: Array, marker: Any) -> Array:
    """Objects with this marker in place of None where they are missing."""
    missing: Array = np.equal(values, None)  # type: ignore[call-overload]  # numpy compares objects with anything
    return np.where(missing, marker, values) if marker is not None and missing.any() else values
