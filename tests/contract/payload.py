"""Requests that fit a model's metadata, as JSON, as binary tensors and as gRPC messages.

Written from the specification, without any server's codecs, so that a server can't just agree with itself.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tabserve.inference.grpc import open_inference_pb2 as pb

Array: TypeAlias = npt.NDArray[Any]
Json: TypeAlias = dict[str, Any]

DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": object,
}
TYPED = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


@dataclass(frozen=True)
class Tensor:
    """One named tensor; a BYTES array holds `bytes` objects."""

    name: str
    datatype: str
    array: Array

    def json(self, nested: bool = False) -> Json:
        """The tensor as an input of a JSON request, with nested or flat data."""
        data = elements(self.array)
        values = np.array(data, object).reshape(self.array.shape).tolist() if nested else data
        return {**self.head(), "data": values}

    def head(self) -> Json:
        """Name, datatype and shape."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.array.shape)}

    def raw(self) -> bytes:
        """The bytes of the binary tensor data extension and of gRPC's raw contents."""
        if self.datatype != "BYTES":
            return self.array.astype(self.array.dtype.newbyteorder("<")).tobytes()
        return b"".join(struct.pack("<I", len(element)) + element for element in self.array.ravel())

    def message(self, typed: bool) -> pb.ModelInferRequest.InferInputTensor:
        """The tensor as an input of a gRPC request, with or without typed contents."""
        message = pb.ModelInferRequest.InferInputTensor(**self.head())
        if typed:
            getattr(message.contents, TYPED[self.datatype]).extend(self.array.ravel().tolist())
        return message


@dataclass(frozen=True)
class Payload:
    """The inputs of one request."""

    tensors: tuple[Tensor, ...]

    def json(self, **more: Any) -> Json:
        """A JSON request; `more` are its other fields."""
        return {"inputs": [tensor.json() for tensor in self.tensors], **more}

    def binary(self, **more: Any) -> tuple[bytes, dict[str, str]]:
        """Body and headers of a request whose tensors are all binary."""
        raws = [tensor.raw() for tensor in self.tensors]
        inputs = [
            {**tensor.head(), "parameters": {"binary_data_size": len(raw)}}
            for tensor, raw in zip(self.tensors, raws, strict=True)
        ]
        return framed({"inputs": inputs, **more}, *raws)

    def message(self, model: str, typed: bool = True, **more: Any) -> pb.ModelInferRequest:
        """A gRPC request, with typed contents if every datatype has them, otherwise raw ones."""
        typed = typed and all(tensor.datatype in TYPED for tensor in self.tensors)
        return pb.ModelInferRequest(
            model_name=model,
            inputs=[tensor.message(typed) for tensor in self.tensors],
            raw_input_contents=[] if typed else [tensor.raw() for tensor in self.tensors],
            **more,
        )

    def rows(self, stop: int, start: int = 0) -> Payload:
        """Some rows of this payload, repeated if it has fewer."""
        which = range(start, stop)
        return Payload(tuple(replace(t, array=np.take(t.array, which, axis=0, mode="wrap")) for t in self.tensors))

    def swapped(self, index: int, tensor: Tensor) -> Payload:
        """The payload with another tensor at this position."""
        return Payload((*self.tensors[:index], tensor, *self.tensors[index + 1 :]))


def framed(head: Json, *raws: bytes) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a JSON part followed by binary tensors."""
    part = json.dumps(head).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(part))}
    return part + b"".join(raws), headers


def elements(array: Array) -> list[Any]:
    """The elements in row-major order, in JSON's form."""
    return [e.decode() if isinstance(e, bytes) else e for e in array.ravel().tolist()]


def from_metadata(inputs: Sequence[Json], rows: int = 4) -> Payload:
    """Seeded values for a server's declared inputs; the first variable dimension has `rows`, others 2 elements."""
    rng = np.random.default_rng(20)
    return Payload(tuple(_generated(spec, rows, rng) for spec in inputs))


def _generated(spec: Json, rows: int, rng: np.random.Generator) -> Tensor:
    sizes = [int(size) for size in spec["shape"]]
    shape = [size if size >= 0 else rows if place == 0 else 2 for place, size in enumerate(sizes)]
    datatype = spec["datatype"]
    dtype = np.dtype(DTYPES[datatype])
    if dtype.kind == "f":
        array = rng.random(shape).astype(dtype)
    elif dtype.kind == "O":
        array = np.array([b"%d" % number for number in rng.integers(0, 10, int(np.prod(shape)))], object).reshape(shape)
    else:
        array = rng.integers(0, 2, shape).astype(dtype)
    return Tensor(spec["name"], datatype, array)


def from_json(request: Json) -> Payload:
    """The inputs of a JSON request, as `--sample` gives them."""
    return Payload(tuple(tensor_from_json(spec) for spec in request["inputs"]))


def tensor_from_json(spec: Json) -> Tensor:
    """One tensor of a JSON request or response, its data nested or flat."""
    flat = np.array(spec["data"], object).ravel().tolist()
    return tensor_from_elements(spec, [e.encode() if isinstance(e, str) else e for e in flat])


def tensor_from_elements(spec: Json, values: list[Any]) -> Tensor:
    """One tensor from its elements in row-major order; BYTES are `bytes`, a None among numbers is NaN."""
    if spec["datatype"] == "BYTES":
        array = np.empty(len(values), object)
        array[:] = values
    else:
        array = np.array(values, DTYPES[spec["datatype"]])
    return Tensor(spec["name"], spec["datatype"], array.reshape([int(size) for size in spec["shape"]]))


def tensor_from_raw(spec: Json, raw: bytes) -> Tensor:
    """One tensor from its raw bytes."""
    dtype = np.dtype(DTYPES[spec["datatype"]])
    values = _split(raw) if dtype.kind == "O" else np.frombuffer(raw, dtype.newbyteorder("<")).tolist()
    return tensor_from_elements(spec, values)


def _split(raw: bytes) -> list[bytes]:
    found: list[bytes] = []
    while raw:
        (size,) = struct.unpack_from("<I", raw)
        found.append(raw[4 : 4 + size])
        raw = raw[4 + size :]
    return found


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Whether both hold the same tensors, bit for bit."""
    return left.keys() == right.keys() and all(
        left[name].head() == right[name].head() and left[name].raw() == right[name].raw() for name in left
    )


def close(left: Tensor, right: Tensor) -> bool:
    """Whether both have the same shape and elements, numbers up to rounding."""
    if left.head() != right.head():
        return False
    if left.array.dtype.kind == "f":
        return np.allclose(left.array, right.array, rtol=1e-5, atol=1e-6, equal_nan=True)
    return left.raw() == right.raw()


def rows_of(tensors: dict[str, Tensor], stop: int, start: int = 0) -> dict[str, Tensor]:
    """Some rows of every tensor."""
    return {name: replace(tensor, array=tensor.array[start:stop]) for name, tensor in tensors.items()}
