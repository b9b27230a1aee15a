"""The requests of a run, encoded before it starts, each with its expected answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.bundle import Bundle, expected
from tabserve.inference.grpc import open_inference_pb2 as pb
from tabserve.inference.tensors import DATATYPES, Tensor, elements_binary
from tabserve_loadtest.target import Target

MATRIX = "input-0"
USER_AGENT = "tabserve-loadtest"
MOST_ROWS = 16_000
MOST_PAYLOADS = 256
MOST_LEARNED = 16
Expected: TypeAlias = dict[str, Any]


class PayloadError(Exception):
    """Requests can't be made; the message is for the user."""


class Payload(msgspec.Struct, array_like=True):
    """One request.

    data: HTTP head and body, or a gRPC message. expected: for V2 each output's elements by name; for V1 the keys that
    every prediction must have; None until an idle server has answered. tolerance: for numbers, relative to the larger
    of 1 and the expected value.
    """

    data: bytes
    rows: int
    expected: Expected | None
    tolerance: float = 1e-5


def from_bundle(target: Target, bundle: Bundle, rows: int, seed: int) -> list[Payload]:
    """Requests with rows drawn from a bundle's reference by a seed. Raises PayloadError, TargetError."""
    picks = _picks(_complete_rows(bundle), rows, seed)
    tolerance = max(bundle.manifest.model.tolerance, 1e-9)
    if target.kind == "records":
        known = [(expected.record(bundle, row), expected.decision(bundle, row)) for row in range(_length(bundle))]
        return [_records(target, [known[row] for row in pick.tolist()], tolerance) for pick in picks]
    columns, wanted = _columns(bundle, [spec["name"] for spec in target.metadata()["inputs"]])
    return [
        Payload(
            encode(target, [Tensor(t.name, t.datatype, t.array[pick]) for t in columns], list(wanted)),
            rows,
            {name: values[pick].ravel().tolist() for name, values in wanted.items()},
            tolerance,
        )
        for pick in picks
    ]


def from_metadata(target: Target, rows: int, seed: int) -> list[Payload]:
    """Requests with random values for the inputs that a server declares; the server itself gives the expected answers.

    Raises PayloadError, TargetError.
    """
    if target.kind == "records":
        raise PayloadError("records are made from a bundle: give --bundle, or users of another kind with --user")
    specs = target.metadata().get("inputs") or []
    if not specs:
        raise PayloadError(f"the metadata of {target.model} declares no inputs: give --bundle")
    rng = np.random.default_rng(seed)
    count = min(MOST_LEARNED, max(1, MOST_ROWS // rows))
    return [
        Payload(encode(target, [_generated(spec, rows, rng) for spec in specs], []), rows, None) for _ in range(count)
    ]


def encode(target: Target, tensors: Sequence[Tensor], outputs: Sequence[str]) -> bytes:
    """A V2 request in its wire form. outputs: the outputs to ask for, none for the model's default."""
    if target.kind == "grpc":
        return pb.ModelInferRequest(
            model_name=target.model,
            inputs=[pb.ModelInferRequest.InferInputTensor(**_head(tensor)) for tensor in tensors],
            raw_input_contents=[elements_binary(tensor.array) for tensor in tensors],
            outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs],
        ).SerializeToString()
    asked = {"outputs": [{"name": name} for name in outputs]} if outputs else {}
    if target.kind == "json":
        inputs = [{**_head(tensor), "data": _json_elements(tensor.array)} for tensor in tensors]
        return _http(target, json.dumps({"inputs": inputs, **asked}).encode(), {})
    raws = [elements_binary(tensor.array) for tensor in tensors]
    inputs = [
        {**_head(tensor), "parameters": {"binary_data_size": len(raw)}}
        for tensor, raw in zip(tensors, raws, strict=True)
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}, **asked}).encode()
    return _http(target, head + b"".join(raws), {"Inference-Header-Content-Length": str(len(head))})


def _records(target: Target, chosen: Sequence[tuple[Any, Any]], tolerance: float) -> Payload:
    body = json.dumps({"instances": [record for record, _ in chosen]}, default=_plain).encode()
    wanted = json.loads(json.dumps([decision for _, decision in chosen], default=_plain))
    return Payload(_http(target, body, {}), len(chosen), {"predictions": wanted}, tolerance)


def _http(target: Target, body: bytes, extra: Mapping[str, str]) -> bytes:
    binary = "Inference-Header-Content-Length" in extra
    headers = {
        "Host": target.authority,
        "User-Agent": USER_AGENT,
        "Content-Type": "application/octet-stream" if binary else "application/json",
        "Content-Length": str(len(body)),
        **extra,
    }
    lines = [f"POST {target.path(target.kind)} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _picks(rows: Array, size: int, seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    count = min(MOST_PAYLOADS, max(1, MOST_ROWS // size))
    return [rng.choice(rows, size) for _ in range(count)]


def _length(bundle: Bundle) -> int:
    return len(next(iter(bundle.reference.records.values())))


def _complete_rows(bundle: Bundle) -> Array:
    """The rows whose boolean fields have a value, because a BOOL tensor has no null."""
    complete = np.ones(_length(bundle), bool)
    for field in bundle.schema.record:
        if field.type == "boolean":
            complete &= ~np.isnan(bundle.reference.records[field.name])
    return np.flatnonzero(complete)


def _columns(bundle: Bundle, inputs: Sequence[str]) -> tuple[list[Tensor], dict[str, Array]]:
    """The reference rows as the tensors that this server takes, and the outputs to ask for with their values."""
    model, reference = bundle.manifest.model, bundle.reference
    outputs = {name: reference.outputs[name] for name in model.default_outputs}
    if set(inputs) == set(reference.records):
        booleans = {field.name for field in bundle.schema.record if field.type == "boolean"}
        tensors = [_tensor(name, column, name in booleans) for name, column in reference.records.items()]
        decisions = [expected.decision(bundle, row) for row in range(_length(bundle))]
        if "decision" in decisions[0]:
            outputs["decision"] = np.array([decision["decision"] for decision in decisions], object)
        return tensors, outputs
    if bundle.manifest.preprocessor is not None:
        raise PayloadError(
            "the inputs of a predictor behind a preprocessor are not in its bundle: load the transformer"
        )
    if inputs == [MATRIX] and not isinstance(reference.features, dict):
        return [_tensor(MATRIX, reference.features, False)], outputs
    if isinstance(reference.features, dict) and set(inputs) == set(reference.features):
        return [_tensor(name, column, False) for name, column in reference.features.items()], outputs
    if inputs == [MATRIX] and isinstance(reference.features, dict):
        matrix = np.column_stack([reference.features[spec.name] for spec in model.features])
        return [_tensor(MATRIX, matrix.astype(np.float64), False)], outputs
    if not isinstance(reference.features, dict) and set(inputs) == {spec.name for spec in model.features}:
        return [_coded(reference.features[:, i], spec) for i, spec in enumerate(model.features)], outputs
    raise PayloadError(f"the server's inputs {', '.join(inputs)} are neither the bundle's record nor its features")


def _coded(column: Array, spec: Any) -> Tensor:
    if spec.type != "category":
        return _tensor(spec.name, column.astype(np.float64), False)
    texts = ["" if np.isnan(code) else spec.values[int(code)] for code in column]
    return _tensor(spec.name, np.array(texts, object), False)


def _tensor(name: str, column: Array, boolean: bool) -> Tensor:
    if column.dtype == object:
        texts = np.empty(len(column), object)
        texts[:] = [("" if value is None else str(value)).encode() for value in column]
        return Tensor(name, "BYTES", texts)
    if boolean:
        return Tensor(name, "BOOL", np.nan_to_num(column).astype(bool))
    return Tensor(name, "FP32" if column.dtype == np.float32 else "FP64", column)


def _generated(spec: Mapping[str, Any], rows: int, rng: np.random.Generator) -> Tensor:
    """Values for a declared input; its first variable dimension has `rows` elements, others have two."""
    sizes = [int(size) for size in spec["shape"]]
    shape = [size if size >= 0 else rows if place == 0 else 2 for place, size in enumerate(sizes)]
    dtype = DATATYPES.get(spec["datatype"])
    if dtype is None:
        raise PayloadError(f"input `{spec['name']}`: unknown datatype {spec['datatype']}")
    if dtype.kind == "f":
        array = rng.random(shape).astype(dtype)
    elif dtype.kind == "O":
        array = np.array([b"%d" % number for number in rng.integers(0, 10, int(np.prod(shape)))], object)
        array = array.reshape(shape)
    else:
        array = rng.integers(0, 2, shape).astype(dtype)
    return Tensor(spec["name"], spec["datatype"], array)


def _head(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.array.shape)}


def _json_elements(array: Array) -> list[Any]:
    if array.dtype.kind == "f":
        return [None if value != value else value for value in array.ravel().tolist()]
    return [value.decode() if isinstance(value, bytes) else value for value in array.ravel().tolist()]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value.tolist()
