"""Turn sample records into the schema's columns and features, exactly as a service does with a request's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tabserve.arrays import Array
from tabserve.bundle.errors import BundleError
from tabserve.bundle.reference import Columns
from tabserve.inference.errors import InvalidRequest
from tabserve.schema import features as schema_features
from tabserve.schema import reading
from tabserve.schema.columns import word
from tabserve.schema.records import Records
from tabserve.schema.schema import Field, Schema
from tabserve.train import faults, own

if TYPE_CHECKING:
    import pandas

Sample = Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]
"""Records by column (a DataFrame or a dict of lists) or one by one; columns not in the schema are ignored."""


def features(schema: str | os.PathLike[str], sample: Any) -> pandas.DataFrame:
    """The features a model is served with, as a DataFrame to train on: categories in the schema's order.

    Whole numbers and booleans have pandas' own dtypes where no value is missing.
    schema: the path of schema.yaml. sample: records, a `Sample`. Raises BundleError.
    """
    loaded = read_schema(Path(schema))
    return own.served(loaded, schema_features.derive(loaded, columns(loaded, sample)))


def read_schema(path: Path) -> Schema:
    """The schema in a file. Raises BundleError."""
    try:
        return reading.load(path)
    except (ValueError, OSError) as error:
        raise BundleError(path.name, str(error), "Correct the schema.") from error


def columns(schema: Schema, sample: Any) -> Columns:
    """The columns of sample records. Raises BundleError with all that does not fit the schema, field by field."""
    fields = schema.fields
    by_row = _by_row(sample, fields) if hasattr(sample, "keys") else [_picked(record, fields) for record in sample]
    for field in schema.record:
        if field.type == "category":
            _name_numbers(by_row, field)
    if not by_row:
        raise BundleError("sample", "expected records, got none", "Give records the model was trained on.")
    try:
        return Records(schema).convert(by_row)
    except InvalidRequest as error:
        found = faults.found(schema, by_row, {*(sample if hasattr(sample, "keys") else sample[0])} - {*fields})
        problem = "\n".join(["does not fit the schema:", *found]) if found else str(error)
        raise BundleError("sample", problem, "Correct the sample or the schema.") from error


def _by_row(sample: Any, fields: Mapping[str, Field]) -> list[dict[str, Any]]:
    names = [name for name in fields if name in sample]
    if not names and len(sample):
        return [{} for _ in sample[next(iter(sample))]]
    lists = [_values(sample[name], are_dates=fields[name].type == "date") for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True)]


def _picked(record: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    return {name: _value(record[name]) for name in fields if name in record}


def _name_numbers(records: Sequence[dict[str, Any]], field: Field) -> None:
    """Turn a category's whole numbers into the text that clients send for them.

    Pandas holds whole numbers as floating ones where some are missing.
    """
    for record in records:
        value = record.get(field.name)
        numbers = int | float if field.numbered else int
        if isinstance(value, numbers) and not isinstance(value, bool):
            record[field.name] = word(value)


def _values(column: Any, *, are_dates: bool) -> list[Any]:
    if getattr(column, "dtype", None) == "category":
        column = column.astype(object)  # keeps numbers whole where some are missing
    array = np.asarray(column)
    if array.dtype.kind == "U":  # in a list of texts and numbers all became texts
        array = np.array(column, object)
    if array.dtype.kind == "M":
        array = _texts(array) if are_dates else _seconds(array)
    return [_value(value) for value in array.tolist()]


def _texts(instants: Array) -> Array:
    """ISO 8601 dates and times, None where one is missing."""
    texts: Array = np.datetime_as_string(instants).astype(object)
    texts[np.isnat(instants)] = None
    return texts


def _seconds(instants: Array) -> Array:
    """Seconds since 1970, from numpy or pandas times without a zone, which count as UTC; NaN where one is missing."""
    exact = instants.astype("datetime64[ns]")
    return np.where(np.isnat(exact), np.nan, exact.astype(np.int64) / 1e9)


def _value(value: Any) -> Any:
    """A Python value; None for anything that pandas calls missing (NaN, NaT, NA)."""
    if hasattr(value, "isoformat"):
        return value.isoformat() if value == value else None
    if hasattr(value, "item"):
        value = value.item()
    if type(value).__name__ == "NAType" or (isinstance(value, float) and value != value):
        return None
    return value
