"""Read the values of records out of V2 inputs, one for each field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tabserve.arrays import Array
from tabserve.inference.errors import InvalidRequest
from tabserve.inference.tensors import DATATYPES as OF_PROTOCOL
from tabserve.inference.tensors import Tensor, text
from tabserve.schema.columns import Misfit, expectation, shown, word
from tabserve.schema.misfits import nearest
from tabserve.schema.schema import Field
from tabserve.schema.timestamps import instants

DATATYPES = {
    "number": "FP64",
    "integer": "INT64",
    "boolean": "BOOL",
    "category": "BYTES",
    "text": "BYTES",
    "timestamp": "BYTES",
    "date": "BYTES",
}
"""The datatype of the input of a field, by the field's type."""
_NUMERIC = frozenset(OF_PROTOCOL) - {"BOOL", "BYTES"}
_WHOLE = frozenset(name for name in OF_PROTOCOL if "INT" in name) | {"BYTES"}
_ACCEPTED = {
    "number": _NUMERIC,
    "integer": _NUMERIC,
    "boolean": frozenset({"BOOL", "FP64"}),
    "category": frozenset({"BYTES"}),
    "text": frozenset({"BYTES"}),
    "timestamp": _NUMERIC | {"BYTES"},
    "date": frozenset({"BYTES"}),
}


def check_names(
    tensors: Sequence[Tensor], given: Mapping[str, Tensor], fields: Mapping[str, Field], identity: str | None
) -> None:
    """Raise InvalidRequest unless there is one input for each field that needs one, and none for anything else."""
    for name in given:
        if name not in fields and name != identity:
            raise InvalidRequest(f"unknown input {quoted(name)}{nearest(name, fields)}")
    if len(given) < len(tensors):
        names = [tensor.name for tensor in tensors]
        raise InvalidRequest(f"input `{next(name for name in names if names.count(name) > 1)}`: given twice")
    for name, field in fields.items():
        if name not in given and (field.required or not tensors):
            raise InvalidRequest(f"input `{name}`: expected {expectation(field)}, but it is missing")


def ids(tensor: Tensor, count: int, faults: list[Misfit]) -> list[str | int | None]:
    """The ids of the records; None where there is none. Raises InvalidRequest."""
    if tensor.datatype not in _WHOLE or tensor.array.shape not in ((count,), (count, 1)):
        expected = f"BYTES or INT64 [{count}]"
        raise InvalidRequest(
            f"input `{tensor.name}`: expected {expected}, got {tensor.datatype} {list(tensor.array.shape)}"
        )
    values = tensor.array.reshape(count)
    return list(_texts(values, tensor.name, faults)) if values.dtype == object else values.tolist()


def flat(tensor: Tensor, field: Field, count: int) -> Array:
    """The tensor's elements as an array [count]. Raises InvalidRequest."""
    shape = tensor.array.shape
    accepted = _ACCEPTED[field.type] | (_NUMERIC if field.numbered else frozenset())
    if tensor.datatype not in accepted or shape not in ((count,), (count, 1)):
        expected = f"{DATATYPES[field.type]} [{count}]"
        raise InvalidRequest(f"input `{field.name}`: expected {expected}, got {tensor.datatype} {list(shape)}")
    return tensor.array.reshape(count)


def numbers(array: Array, field: Field, faults: list[Misfit]) -> Array:
    """The values as FP64, NaN where missing, and infinity for what is none of the field's type."""
    if array.dtype == object:
        return instants(strings(array, field, faults))
    if field.type == "boolean" and array.dtype != bool:  # FP64, so that some may be missing
        return np.where(np.isnan(array) | (array == 0) | (array == 1), array, np.inf)
    return array.astype(np.float64)


def _texts(array: Array, name: str, faults: list[Misfit]) -> list[str | None]:
    """BYTES elements as text; one that is not UTF-8 is None, and one of the faults."""
    try:
        return [text(value) for value in array]
    except UnicodeDecodeError:
        texts = [_utf8(value) for value in array]
    faults += [Misfit(at, name, "UTF-8", "other bytes") for at, value in enumerate(texts) if value is None]
    return texts


def _utf8(value: bytes | str) -> str | None:
    try:
        return text(value)
    except UnicodeDecodeError:
        return None


def strings(array: Array, field: Field, faults: list[Misfit]) -> list[str | None]:
    """The values as text; None where missing."""
    if array.dtype != object:
        return [None if number != number else word(number) for number in array.tolist()]
    strings = _texts(array, field.name, faults)
    if field.required or field.type == "text" or "" in field.values:
        return strings
    return [string or None for string in strings]


def element(value: Any) -> Any:
    """An element of a tensor as a Python value."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str) else value.item()


def quoted(name: str) -> str:
    """A name of the request, as errors show it."""
    return f"`{shown(name)[1:-1]}`"
