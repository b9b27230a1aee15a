"""Turn records that hold only numbers, as JSON objects, into a matrix in one step."""

from __future__ import annotations

import struct
from typing import Annotated, Any

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.schema.records import Decoder, Records, record_struct
from tabserve.schema.schema import Field, Schema


def are_all(schema: Schema, dtype: np.dtype[Any]) -> bool:
    """Whether every field is a number that cannot be beyond the range of `dtype`."""
    limit = float(np.finfo(dtype).max)
    return all(field.type == "number" and max(map(abs, field.bounds)) <= limit for field in schema.record)


class NumberRecords:
    """Reads records of a schema whose fields `are_all` numbers: the decoder itself checks their bounds.

    Whatever it does not take is left for Records to read or refuse.
    """

    def __init__(self, schema: Schema, records: Records, dtype: np.dtype[Any]) -> None:
        self._records = records
        self._dtype = dtype
        self._width = len(schema.fields)
        self._decode = Decoder(list[record_struct(schema.fields, _within)], self._width).decode  # type: ignore[misc]
        self._pack = struct.Struct(f"{self._width}{dtype.char}").pack

    def decode(self, body: bytes | memoryview) -> Array:
        """The matrix [records, fields] of a V1 body, NaN where a value is missing. Raises InvalidRequest."""
        try:
            instances = self._decode(body).instances
            packed = b"".join([self._pack(*msgspec.structs.astuple(record)) for record in instances])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, struct.error):
            columns = self._records.decode(body)
            return np.stack(list(columns.values()), axis=1).astype(self._dtype)
        return np.frombuffer(packed, self._dtype).reshape(len(instances), self._width)


def _within(field: Field) -> Any:
    low, high = field.bounds
    return Annotated[float, msgspec.Meta(ge=low, le=high)]
