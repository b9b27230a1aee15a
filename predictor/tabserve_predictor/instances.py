"""Turn V1 instances into tensors: rows of numbers, or objects of named features."""

from __future__ import annotations

from typing import TypeAlias

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.bundle.tensors import MATRIX
from tabserve.inference.bounds import Bounds
from tabserve.inference.errors import InvalidRequest, shortened
from tabserve.inference.rest.codec import decode_json
from tabserve.inference.tensors import Tensor

Value: TypeAlias = float | bool | str | None
Row: TypeAlias = list[float | None]
Named: TypeAlias = dict[str, Value]


class _Body(msgspec.Struct):
    instances: list[Row | Named]


_decode = msgspec.json.Decoder(_Body).decode


def decode_instances(body: bytes) -> list[Row | Named]:
    """The instances in a V1 body. Raises InvalidRequest."""
    instances: list[Row | Named] = decode_json(_decode, body).instances
    return instances


def tensors(instances: list[Row | Named], bounds: Bounds) -> tuple[Tensor, ...]:
    """One matrix from rows, or one column per name from objects; they can't be mixed, and at least one must be given.

    Raises InvalidRequest, also where there are more names than the model has features.
    """
    rows = [instance for instance in instances if isinstance(instance, list)]
    if len(rows) == len(instances):
        return (Tensor(MATRIX, "FP64", _matrix(rows)),)
    named = [instance for instance in instances if isinstance(instance, dict)]
    names = named[0].keys()
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
    return np.array(rows, np.float64).reshape(len(rows), -1)


def _column(name: str, values: list[Value]) -> Tensor:
    if any(isinstance(value, str) for value in values):
        if not all(isinstance(value, str | None) for value in values):
            raise InvalidRequest(f"`{shortened(name)}`: expected text or numbers, got both")
        column = np.array([str(value or "").encode() for value in values], object)
        return Tensor(name, "BYTES", column)
    return Tensor(name, "FP64", np.array(values, np.float64))
