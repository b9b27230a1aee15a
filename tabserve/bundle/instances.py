"""Turn V1 instances into tensors: rows of numbers, or objects of named features."""

from __future__ import annotations

import re
from itertools import chain
from typing import TypeAlias

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.bundle.tensors import MATRIX
from tabserve.inference.bounds import LARGE_BYTES, Bounds
from tabserve.inference.errors import InvalidRequest, shortened
from tabserve.inference.pieces import decoded
from tabserve.inference.rest.codec import decode_json
from tabserve.inference.tensors import Tensor

Value: TypeAlias = float | bool | str | None
Row: TypeAlias = list[float | None]
Named: TypeAlias = dict[str, Value]
Table: TypeAlias = dict[str, list[Value] | dict[str, Value]]
"""Columns of a few rows, as lists, or by the same keys."""

_PIECE = 32 * 2**10
"""How many values are made a matrix in one step, between which other threads run."""


class _Body(msgspec.Struct):
    instances: list[Row | Named]


class _RawBody(msgspec.Struct):
    instances: msgspec.Raw


class _KServeBody(msgspec.Struct):
    instances: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    inputs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode = msgspec.json.Decoder(_Body).decode
_decode_raw = msgspec.json.Decoder(_RawBody).decode
_decode_some = msgspec.json.Decoder(list[Row | Named]).decode
_decode_kserve = msgspec.json.Decoder(_KServeBody).decode
_decode_tables = msgspec.json.Decoder(list[Table]).decode
_first_is_row = re.compile(rb"\s*\[\s*\[").match
_first_is_table = re.compile(rb'\s*\[\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*[\[{]').match


def decode_tensors(body: bytes, bounds: Bounds) -> tuple[Tensor, ...]:
    """The tensors of a V1 body, as from `tensors`; none if it holds no instances.

    Raises InvalidRequest, and RequestTooLarge if there are too many instances or values.
    """
    instances = _instances(body, bounds)
    bounds.check_rows(len(instances))
    return tensors(instances, bounds) if instances else ()


def decode_arrays(body: bytes, bounds: Bounds) -> tuple[tuple[Tensor, ...], bytes]:
    """The tensors of the rows or tables that KServe's own servers read from a V1 body, under `inputs` or `instances`.

    If it is records, there are no tensors, but a body that holds them under `instances`. Raises as `decode_tensors`.
    """
    found = decode_json(_decode_kserve, body)
    given = found.instances if found.inputs is msgspec.UNSET else found.inputs
    if given is msgspec.UNSET:
        raise InvalidRequest("expected `instances` or `inputs`, got neither - at `$`")
    array = bytes(given)
    plain = b'{"instances":%b}' % array
    if _first_is_row(array):
        return decode_tensors(plain, bounds), plain
    if _first_is_table(array):
        rows = [row for at, table in enumerate(decode_json(_decode_tables, array)) for row in _table_rows(at, table)]
        bounds.check_rows(len(rows))
        return tensors(list(rows), bounds), plain
    return (), plain


def _table_rows(at: int, table: Table) -> list[Named]:
    columns = {
        name: column if isinstance(column, dict) else {str(row): value for row, value in enumerate(column)}
        for name, column in table.items()
    }
    if not columns:
        raise InvalidRequest(f"instance {at}: expected a column of each feature, got none")
    keys = next(iter(columns.values())).keys()
    for name, column in columns.items():
        if column.keys() != keys or not keys:
            raise InvalidRequest(f"instance {at}, `{shortened(name)}`: expected as many values as in the first column")
    return [{name: column[key] for name, column in columns.items()} for key in keys]


def _instances(body: bytes, bounds: Bounds) -> list[Row | Named]:
    found: list[Row | Named]
    if len(body) <= LARGE_BYTES:
        found = decode_json(_decode, body).instances
        return found
    array = bytes(decode_json(_decode_raw, body).instances)
    if not array.startswith(b"["):
        raise InvalidRequest("expected `instances` to be an array - at `$.instances`")
    found = decode_json(lambda text: list(chain.from_iterable(decoded(_decode_some, text, bounds.width))), array)
    return found


def tensors(instances: list[Row | Named], bounds: Bounds) -> tuple[Tensor, ...]:
    """One matrix from rows, or one column per name from objects; they can't be mixed, and at least one must be given.

    Raises InvalidRequest, also where there are more names than the model has features.
    """
    rows = [instance for instance in instances if isinstance(instance, list)]
    if len(rows) == len(instances):
        return (Tensor(MATRIX, "FP64", _matrix(rows)),)
    named = [instance for instance in instances if isinstance(instance, dict)]
    names = named[0].keys()
    if not names:
        raise InvalidRequest("instance 0: expected an object with the model's features, got an empty one")
    bounds.check_inputs(len(names))
    for index, instance in enumerate(instances):
        if not isinstance(instance, dict) or instance.keys() != names:
            expected = f"expected an object with {', '.join(map(shortened, names))}, like the first"
            raise InvalidRequest(f"instance {index}: {expected}")
    return tuple(_column(name, [instance[name] for instance in named]) for name in names)


def _matrix(rows: list[Row]) -> Array:
    for index, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise InvalidRequest(f"instance {index}: expected {len(rows[0])} values, as in the first, got {len(row)}")
    some = max(1, _PIECE // max(1, len(rows[0])))
    parts = [_taken(rows[start : start + some]) for start in range(0, len(rows), some)]
    return np.concatenate(parts).reshape(len(rows), -1)


def _taken(rows: list[Row]) -> Array:
    """Rows as a matrix. Their values are freed row by row, because at the end that would be one long step."""
    matrix = np.array(rows, np.float64)
    for row in rows:
        row.clear()
    return matrix


def _column(name: str, values: list[Value]) -> Tensor:
    if any(isinstance(value, str) for value in values):
        if not all(isinstance(value, str | None) for value in values):
            raise InvalidRequest(f"`{shortened(name)}`: expected text or numbers, got both")
        column = np.array([str(value or "").encode() for value in values], object)
        return Tensor(name, "BYTES", column)
    return Tensor(name, "FP64", np.array(values, np.float64))
