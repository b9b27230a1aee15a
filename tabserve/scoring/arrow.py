"""Turn Arrow record batches into checked columns of records, with the schema's types and without guessing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tabserve.arrays import Array
from tabserve.inference.errors import InvalidRequest
from tabserve.schema.cells import TRUTHS
from tabserve.schema.columns import Checks, Columns, Misfit, expectation, firsts, word
from tabserve.schema.misfits import nearest
from tabserve.schema.schema import Field, Schema
from tabserve.schema.timestamps import instant, seconds

_MOST_SECONDS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_WRITTEN = ("number", "integer", "boolean", "timestamp")


class ArrowRecords:
    """Reads record batches whose columns are a schema's fields; other columns are ignored.

    clock: gives "now" in seconds since 1970.
    """

    def __init__(self, schema: Schema, clock: Callable[[], float]) -> None:
        self._schema = schema
        self._checks = Checks(schema, clock)

    def verify(self, columns: pa.Schema, *, texts: bool) -> None:
        """Raise InvalidRequest, naming the column, if a field's column is missing or has another type.

        texts: whether every column is text, as in a CSV file.
        The column of an optional field may be missing, unless another column has nearly the same name.
        """
        for field in self._schema.record:
            if field.name in columns.names:
                _verify_type(field, columns.field(field.name).type, texts=texts)
            else:
                others = set(columns.names) - self._schema.fields.keys()
                hint = nearest(field.name, others)
                if field.required or hint:
                    expected = f"expected {expectation(field)}, but it is missing{hint}"
                    raise InvalidRequest(f"column `{field.name}`: {expected}")

    def read(self, batch: pa.RecordBatch) -> tuple[Columns, Array, list[Misfit]]:
        """The checked columns of the records that fit, their positions, and the first fault of each of the others."""
        numbers = np.full((len(self._checks.numeric), batch.num_rows), np.nan)
        for at, field in enumerate(self._checks.numeric):
            if field.name in batch.schema.names:
                numbers[at] = _numbers(field, batch.column(field.name))
        words = {field.name: _words(batch, field.name) for field in self._checks.words}
        columns, places, faults = self._checks.sift(numbers, words, _given(batch))
        return columns, places, firsts(faults)


def readable(batch: pa.RecordBatch, schema: Schema) -> pa.RecordBatch:
    """The batch, with text parsed into numbers, booleans (0, 1) and times (seconds)."""
    for field in schema.record:
        if field.type in _WRITTEN and field.name in batch.schema.names and _is_string(batch.column(field.name).type):
            at = batch.schema.get_field_index(field.name)
            batch = batch.set_column(at, field.name, pa.array(_read(field, batch.column(at)), from_pandas=True))
    return batch


def _given(batch: pa.RecordBatch) -> Callable[[str, int], Any]:
    def given(name: str, record: int) -> Any:
        return batch.column(name)[record].as_py() if name in batch.schema.names else None

    return given


def _verify_type(field: Field, kind: pa.DataType, *, texts: bool) -> None:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    numbers = _NUMBER if field.numbered else []
    taken = [pa.types.is_null, *([_is_string] if texts else [*_TAKEN[field.type], *numbers])]
    if not any(takes(kind) for takes in taken):
        raise InvalidRequest(f"column `{field.name}`: expected {_KINDS[field.type]}, got {kind}")


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


_NUMBER = [pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal]
_TAKEN: Mapping[str, list[Callable[[pa.DataType], bool]]] = {
    "number": _NUMBER,
    "integer": _NUMBER,
    "boolean": [pa.types.is_boolean],
    "category": [_is_string],
    "text": [_is_string],
    "timestamp": [*_NUMBER, pa.types.is_timestamp, pa.types.is_date, _is_string],
    "date": [pa.types.is_date, pa.types.is_timestamp, _is_string],
}
_KINDS = {
    "number": "numbers",
    "integer": "numbers",
    "boolean": "booleans",
    "category": "strings",
    "text": "strings",
    "timestamp": "timestamps, ISO 8601 strings, or numbers of seconds since 1970",
    "date": "dates, or ISO 8601 strings",
}


def _numbers(field: Field, column: pa.Array) -> Array:
    """The numbers as FP64 [rows]: NaN for a missing value, infinity for one that is not of the field's type."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms" if pa.types.is_date64(column.type) else "s"))
    if pa.types.is_timestamp(column.type):
        return _float(column.cast(pa.int64())) / _MOST_SECONDS[column.type.unit]
    if _is_string(column.type):
        return _read(field, column)
    return _float(column)


def _float(column: pa.Array) -> Array:
    made: Array = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return made


def _read(field: Field, column: pa.Array) -> Array:
    """Numbers, booleans and times written as text; each distinct text is parsed once."""
    encoded = column.dictionary_encode()
    read = {"boolean": _truth, "timestamp": _instant, "date": instant}.get(field.type, _number)
    values = np.array([read(text) for text in encoded.dictionary.to_pylist()] + [math.nan])
    codes = encoded.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False)
    return np.asarray(values[codes])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.inf


def _truth(text: str) -> float:
    return TRUTHS.get(text.lower(), math.inf)


def _instant(text: str) -> float:
    found = seconds(text)
    if found is None:
        number = _number(text)
        return math.inf if math.isnan(number) else number
    return found


def _words(batch: pa.RecordBatch, name: str) -> list[str | None]:
    """The column as Python strings, with each distinct string made once."""
    if name not in batch.schema.names:
        return [None] * batch.num_rows
    column = batch.column(name)
    if pa.types.is_null(column.type):
        return [None] * batch.num_rows
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    values = np.array([*map(word, encoded.dictionary.to_pylist()), None], object)
    codes = encoded.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False)
    words: list[str | None] = values[codes].tolist()
    return words
