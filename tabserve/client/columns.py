"""Columns of records as V2 inputs, typed by what the model's metadata says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tabserve.arrays import Array
from tabserve.inference.tensors import Tensor, TensorSpec
from tabserve.schema.columns import Misfit, shown
from tabserve.schema.misfits import nearest

_EXPECTED = {"FP64": "a number", "INT64": "a whole number", "BOOL": "true or false", "BYTES": "text"}
_NUMBERS, _TEXTS, _TRUTHS = frozenset({int, float}), frozenset({str, bytes}), frozenset({bool})
_TAKEN: dict[str, list[frozenset[type]]] = {
    "FP64": [_NUMBERS],
    "INT64": [_NUMBERS],
    "BOOL": [_TRUTHS],
    "BYTES": [_TEXTS, _NUMBERS],
}
"""The types of which all values of a column must be; the numbers of a BYTES column are times."""


class Columns(NamedTuple):
    """V2 inputs of records, the records' positions, and faults of the others."""

    tensors: list[Tensor]
    places: Array
    faults: list[Misfit]


def of_arrays(given: Mapping[str, Any], specs: Sequence[TensorSpec]) -> list[Tensor]:
    """The inputs that have a column; other columns are ignored.

    given: one array, Series or list [rows] per name. Missing values are NaN, None, NaT or pandas.NA.
    Raises ValueError for a column of another kind, and for one that has nearly the name of a missing input.
    """
    others = set(given) - {spec.name for spec in specs}
    for spec in specs:
        if spec.name not in given and (hint := nearest(spec.name, others)):
            raise ValueError(f"column `{spec.name}`: missing{hint}")
    tensors = [_tensor(spec, given[spec.name]) for spec in specs if spec.name in given]
    if not tensors:
        raise ValueError(f"expected columns named {', '.join(spec.name for spec in specs)}")
    return tensors


def of_records(records: Sequence[Mapping[str, Any]], specs: Sequence[TensorSpec]) -> Columns:
    """The inputs of those records whose values are of the inputs' types."""
    known = {spec.name: spec for spec in specs}
    given = {name: [record.get(name) for record in records] for record in records for name in record if name in known}
    faults = [
        Misfit(at, name, "no field of this name", f"one{nearest(name, known)}")
        for at, record in enumerate(records)
        for name in record
        if name not in known
    ]
    for name, values in given.items():
        taken = _taken(known[name], values) or _TAKEN[known[name].datatype][0]
        faults += [
            Misfit(at, name, _EXPECTED[known[name].datatype], shown(value))
            for at, value in enumerate(values)
            if value is not None and type(value) not in taken
        ]
    places = np.delete(np.arange(len(records)), [fault.record for fault in faults])
    fit = {name: [values[at] for at in places.tolist()] for name, values in given.items()}
    tensors = [_tensor(spec, fit[spec.name]) for spec in specs if spec.name in fit]
    return Columns(tensors, places, sorted(faults, key=lambda fault: fault.record))


def _tensor(spec: TensorSpec, column: Any) -> Tensor:
    """A column as an input. Raises ValueError."""
    values = _array(column)
    if values.ndim != 1:
        raise ValueError(f"column `{spec.name}`: expected one value for each record, got shape {list(values.shape)}")
    if values.dtype.kind == "M":  # times, which are UTC
        seconds = values.astype("datetime64[us]").astype(np.int64) / 1e6
        return Tensor(spec.name, "FP64", np.where(np.isnat(values), np.nan, seconds))
    if values.dtype.kind in "iuf" and spec.datatype != "BOOL":
        return Tensor(spec.name, "FP64", values.astype(np.float64))
    if values.dtype == bool and spec.datatype == "BOOL":
        return Tensor(spec.name, "BOOL", values)
    return _of_objects(spec, values.tolist())


def _of_objects(spec: TensorSpec, values: Sequence[Any]) -> Tensor:
    """Python values as an input, NaN or an empty text where one is None. Raises ValueError."""
    taken = _taken(spec, values)
    if taken is None:
        got = ", ".join(sorted({type(value).__name__ for value in values if value is not None}))
        raise ValueError(f"column `{spec.name}`: expected {_EXPECTED[spec.datatype]} for each record, got {got}")
    if taken is _TEXTS:
        return Tensor(spec.name, "BYTES", np.array(["" if value is None else value for value in values], object))
    return Tensor(spec.name, "FP64", np.array([np.nan if value is None else value for value in values], np.float64))


def _taken(spec: TensorSpec, values: Sequence[Any]) -> frozenset[type] | None:
    """The types that all values of a column are of, unless they are None; None if there are others."""
    kinds = {type(value) for value in values if value is not None}
    return next((taken for taken in _TAKEN[spec.datatype] if kinds <= taken), None)


def _array(column: Any) -> Array:
    """A column as an array of numbers, booleans or times, or else of Python values, None where one is missing."""
    if not hasattr(column, "isna"):
        made = np.asarray(column)
        return made if made.dtype.kind in "biufM" else np.asarray(column, object)
    if getattr(column.dtype, "tz", None) is not None:  # a Series of times in another zone
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    plain = np.asarray(column)
    if plain.dtype.kind in "biufM":
        return plain
    made = np.array(column.astype(object), object)
    made[np.asarray(column.isna())] = None
    return made
