"""Tensors, requests and responses of the Open Inference Protocol, as numpy arrays."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Parameters: TypeAlias = dict[str, str | int | float | bool]

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
DATATYPE_OF: dict[np.dtype[Any], str] = {dtype: name for name, dtype in DATATYPES.items()}


class Tensor(msgspec.Struct, frozen=True, gc=False):
    """One named tensor; its shape is the array's.

    A BYTES array has dtype object. From a request its elements are `bytes`; in a response they may be `bytes` or `str`.
    """

    name: str
    datatype: str
    array: Array


class RequestedOutput(msgspec.Struct, frozen=True, gc=False):
    """An output the client asked for; `binary` is None where the client did not say."""

    name: str
    binary: bool | None = None


class InferRequest(msgspec.Struct, frozen=True):
    """What a client asks of a model. `outputs` empty means the model's default outputs."""

    inputs: tuple[Tensor, ...]
    id: str | None = None
    outputs: tuple[RequestedOutput, ...] = ()
    parameters: Parameters = {}
    binary_output: bool = False


class InferResponse(msgspec.Struct, frozen=True):
    """What a model answers; the server adds the model's name, version and the request's id."""

    outputs: tuple[Tensor, ...]
    parameters: Parameters = {}


class TensorSpec(msgspec.Struct, frozen=True):
    """A tensor as metadata declares it; a dimension of -1 may have any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(msgspec.Struct, frozen=True):
    """What `GET v2/models/{name}` and ModelMetadata answer.

    `outputs` are the tensors returned by default; tensors that must be asked for by name are described in
    `properties["optional_outputs"]` (OIP ModelMetadataResponse.properties).
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    properties: dict[str, str] = {}


def text(value: bytes | str) -> str:
    """A BYTES element as text.

    Raises UnicodeDecodeError (a ValueError) where it is not UTF-8.
    """
    return value if isinstance(value, str) else value.decode()
