"""Count the fields in a message's bytes before protobuf makes an object of each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tabserve.inference.bounds import LARGE_BYTES, SLACK, Bounds
from tabserve.inference.errors import InvalidRequest, RequestTooLarge
from tabserve.inference.tensors import MAX_DIMENSIONS

# Field numbers in open_inference.proto.
_INPUTS = _CONTENTS = 5
_SHAPE = 3
_LAST_VARINTS = 5
"""The last field of the contents that holds numbers of one byte or more."""
_PER_INPUT = 64
_LARGEST_VARINT = 10

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_fields(message: bytes, bounds: Bounds) -> None:
    """Raise InvalidRequest or RequestTooLarge if a ModelInferRequest has more fields than one for this model can have.

    Malformed messages are left to protobuf.
    """
    if len(message) <= LARGE_BYTES:
        return
    most = SLACK + _PER_INPUT * bounds.inputs
    view = memoryview(message)
    for number, value in _fields(view):
        most -= 1
        if number == _INPUTS:
            most -= _check_input(value, most, bounds)
        if most < 0:
            raise InvalidRequest("expected a message of fewer fields")


def _check_input(tensor: memoryview, most: int, bounds: Bounds) -> int:
    """The number of an input's fields, after checking its contents against the rows."""
    count = 0
    for number, value in _fields(tensor):
        count += 1
        if count > most or (number == _SHAPE and len(value) > MAX_DIMENSIONS * _LARGEST_VARINT):
            raise InvalidRequest("expected inputs of fewer fields")
        if number == _CONTENTS:
            _check_contents(value, bounds)
    return count


def _check_contents(contents: memoryview, bounds: Bounds) -> None:
    left = bounds.rows + SLACK
    for number, value in _fields(contents):
        left -= 1
        if left < 0:
            raise RequestTooLarge(f"expected at most {bounds.rows} rows, got more")
        if number <= _LAST_VARINTS and len(value) > bounds.values:
            bounds.check_values(int(np.count_nonzero(np.frombuffer(value, np.uint8) < 0x80)))


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The number of each field and, if it has a length, its bytes, until the first malformed one."""
    at, end, nothing = 0, len(message), message[:0]
    while at < end:
        tag, at = _varint(message, at)
        kind = tag & 7
        value = nothing
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind == _BYTES:
            size, at = _varint(message, at)
            value = message[at : at + size]
            at += size
        else:
            at += {_FIXED64: 8, _FIXED32: 4}.get(kind, 0)
        yield tag >> 3, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A varint, and where it ends; a cut one is read as far as it goes."""
    value = shift = 0
    for place in range(at, min(len(message), at + _LARGEST_VARINT)):
        byte = message[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
    return value, len(message)
