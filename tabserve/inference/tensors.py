"""Tensors, requests and responses of the Open Inference Protocol, as numpy arrays."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import prod
from typing import Any, TypeAlias

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.inference.contract import Contract

Parameters: TypeAlias = dict[str, str | int | float | bool]

MAX_DIMENSIONS = 8

# Datatypes of the protocol (inference_rest.md, "Tensor Data Types"). BYTES arrays hold `bytes` objects.
DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}
LITTLE_ENDIAN = {dtype: dtype.newbyteorder("<") for dtype in DATATYPES.values()}
"""Each datatype in its wire form, which on most machines is the same."""
DATATYPE_OF: dict[np.dtype[Any], str] = {dtype: name for name, dtype in DATATYPES.items()}


class Tensor(msgspec.Struct, frozen=True, gc=False):
    """One named tensor; its shape is the array's.

    A BYTES array has dtype object. From a request its elements are `bytes`; in a response they may be `bytes` or `str`.
    content_type: the parameter of that name, in a response to MLServer's clients.
    """

    name: str
    datatype: str
    array: Array
    content_type: str = ""


class RequestedOutput(msgspec.Struct, frozen=True, gc=False):
    """An output that the client asked for; `binary` is None if the client did not say."""

    name: str
    binary: bool | None = None


class InferRequest(msgspec.Struct, frozen=True):
    """A client's request to a model; no `outputs` means the model's default outputs."""

    inputs: tuple[Tensor, ...]
    id: str | None = None
    outputs: tuple[RequestedOutput, ...] = ()
    parameters: Parameters = {}
    binary_output: bool = False


class InferResponse(msgspec.Struct, frozen=True):
    """A model's answer; the server adds the model's name and version, and the request's id if there is none here."""

    outputs: tuple[Tensor, ...]
    parameters: Parameters = {}
    id: str | None = None


class TensorSpec(msgspec.Struct, frozen=True):
    """A tensor as metadata declares it; a dimension of -1 may have any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(msgspec.Struct, frozen=True):
    """The answer to `GET v2/models/{name}` and ModelMetadata.

    `outputs` are the tensors returned by default; tensors that must be asked for by name are described in
    `properties["optional_outputs"]` (OIP ModelMetadataResponse.properties). So are categories, ranges and units, in
    the JSON Schemas of the contract: the protocol's own description of a tensor has no place for them.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    properties: dict[str, str] = {}
    contract: Contract = Contract()

    @property
    def all_properties(self) -> dict[str, str]:
        """The properties, and the contract's schemas as texts."""
        return self.properties | self.contract.properties


def holds_all(mask: Array) -> bool:
    """Whether every element of a BOOL array is true; for a few rows this is much faster than numpy's `all`."""
    return 0 not in mask.tobytes()


def holds_any(mask: Array) -> bool:
    """Whether any element of a BOOL array is true."""
    return 1 in mask.tobytes()


def text(value: bytes | str) -> str:
    """A BYTES element as text.

    Raises UnicodeDecodeError (a ValueError) if it is not UTF-8.
    """
    return value if isinstance(value, str) else value.decode()


def binary_elements(data: bytes, dtype: np.dtype[Any], shape: Sequence[int]) -> Array:
    """The array in a tensor's raw bytes: little-endian, row-major, BYTES as 4-byte length and content.

    Numbers are not copied. Raises ValueError if size and shape disagree.
    Source: Triton extension_binary_data.md; inference_grpc.md "Raw tensor contents".
    """
    count = prod(shape)
    if dtype.kind == "O":
        return _split_bytes(data, count).reshape(shape)
    if len(data) != count * dtype.itemsize:
        raise ValueError(f"expected {count * dtype.itemsize} bytes for shape {list(shape)}, got {len(data)}")
    if dtype.kind == "b" and data.strip(b"\x00\x01"):
        raise ValueError("expected BOOL bytes of 0 or 1")
    return np.frombuffer(data, LITTLE_ENDIAN[dtype]).reshape(shape)


_length = struct.Struct("<I").unpack_from


def _split_bytes(data: bytes, count: int) -> Array:
    elements: list[bytes] = []
    at, end = 0, len(data)
    while at < end and len(elements) < count:
        if at + 4 > end:
            raise ValueError("expected a 4-byte length before each BYTES element")
        start = at + 4
        at = start + _length(data, at)[0]
        elements.append(data[start:at])
    if len(elements) != count or at != end:
        raise ValueError(
            f"expected {count} BYTES elements, each with its length, got {end} bytes that do not hold them"
        )
    array = np.empty(count, object)
    array[:] = elements
    return array


def elements_binary(array: Array) -> bytes:
    """The raw bytes of a tensor's array, in the form that `binary_elements` reads."""
    if array.dtype.kind != "O":
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    encoded = [e.encode() if isinstance(e, str) else e for e in array.ravel()]
    return b"".join(struct.pack("<I", len(e)) + e for e in encoded)
