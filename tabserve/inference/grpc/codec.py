"""Decode gRPC messages to requests, and encode responses, with typed and with raw contents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from tabserve.arrays import Array
from tabserve.inference.bounds import UNBOUNDED, Bounds
from tabserve.inference.content_types import CONTENT_TYPE, check_output, check_request, misfit
from tabserve.inference.errors import InvalidRequest, quoted, shortened
from tabserve.inference.grpc import open_inference_pb2 as pb
from tabserve.inference.tensors import (
    DATATYPES,
    MAX_DIMENSIONS,
    InferRequest,
    InferResponse,
    Parameters,
    RequestedOutput,
    Tensor,
    binary_elements,
    elements_binary,
)

# inference_grpc.md, "Tensor Data": which field carries which datatype. FP16 has none: it must be raw.
CONTENTS: dict[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}

_PIECE = 32 * 2**10
"""How many elements are made an array in one step."""


def decode_request(message: pb.ModelInferRequest, bounds: Bounds = UNBOUNDED) -> InferRequest:
    """The request in a message.

    Raises InvalidRequest for anything that does not follow inference_grpc.md, and RequestTooLarge beyond the bounds.
    """
    if not message.inputs:
        raise InvalidRequest("inputs: expected at least one tensor, got none")
    bounds.check_inputs(len(message.inputs))
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise InvalidRequest(f"raw_input_contents: expected {len(message.inputs)} (one per input), got {len(raw)}")
    inputs = [
        _raw_tensor(tensor, i, raw[i], bounds) if raw else _typed_tensor(tensor, i, bounds)
        for i, tensor in enumerate(message.inputs)
    ]
    parameters = _parameters(message.parameters) if message.parameters else {}
    if CONTENT_TYPE in parameters:
        check_request(parameters[CONTENT_TYPE], [(tensor.datatype, tensor.array.shape) for tensor in inputs])
    return InferRequest(
        inputs=tuple(inputs),
        id=message.id or None,
        outputs=tuple(_requested(output) for output in message.outputs),
        parameters=parameters,
        binary_output=bool(raw),
    )


def _parameters(parameters: Mapping[str, pb.InferParameter]) -> Parameters:
    chosen = {name: parameter.WhichOneof("parameter_choice") for name, parameter in parameters.items()}
    return {name: getattr(parameters[name], choice) for name, choice in chosen.items() if choice}


def _requested(output: pb.ModelInferRequest.InferRequestedOutputTensor) -> RequestedOutput:
    if output.parameters:
        check_output(_parameters(output.parameters).get(CONTENT_TYPE, ""), output.name)
    return RequestedOutput(output.name)


def _check_content_type(tensor: pb.ModelInferRequest.InferInputTensor, index: int) -> None:
    problem = misfit(_parameters(tensor.parameters).get(CONTENT_TYPE, ""), tensor.datatype)
    if problem is not None:
        raise _fail(tensor, index, problem)


def _fail(tensor: pb.ModelInferRequest.InferInputTensor, index: int, problem: str) -> InvalidRequest:
    return InvalidRequest(f"input `{shortened(tensor.name)}`: {problem} - at `inputs[{index}]`")


def _form(
    tensor: pb.ModelInferRequest.InferInputTensor, index: int, bounds: Bounds
) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """A tensor's datatype and shape."""
    dtype = DATATYPES.get(tensor.datatype)
    if dtype is None:
        raise _fail(tensor, index, f"expected a datatype of {', '.join(DATATYPES)}, got {quoted(tensor.datatype)}")
    if len(tensor.shape) > MAX_DIMENSIONS:
        raise _fail(tensor, index, f"expected at most {MAX_DIMENSIONS} dimensions, got {len(tensor.shape)}")
    shape = tuple(tensor.shape)
    if shape and not 0 <= min(shape) <= max(shape) < 2**31:
        raise _fail(tensor, index, f"expected dimensions of 0 to {2**31 - 1}, got {list(shape)}")
    bounds.check_shape(shape)
    if tensor.parameters:
        _check_content_type(tensor, index)
    return dtype, shape


def _raw_tensor(tensor: pb.ModelInferRequest.InferInputTensor, index: int, data: bytes, bounds: Bounds) -> Tensor:
    dtype, shape = _form(tensor, index, bounds)
    if tensor.HasField("contents") and tensor.contents.ListFields():  # MLServer's client sends empty ones
        raise _fail(tensor, index, "expected either `contents` or raw_input_contents, got both")
    try:
        return Tensor(tensor.name, tensor.datatype, binary_elements(data, dtype, shape))
    except ValueError as error:
        raise _fail(tensor, index, str(error)) from None


def _typed_tensor(tensor: pb.ModelInferRequest.InferInputTensor, index: int, bounds: Bounds) -> Tensor:
    dtype, shape = _form(tensor, index, bounds)
    field = CONTENTS.get(tensor.datatype)
    if field is None:
        raise _fail(tensor, index, f"expected {tensor.datatype} in raw_input_contents, got `contents`")
    filled = [descriptor.name for descriptor, _ in tensor.contents.ListFields()]
    if filled not in ([field], []):
        raise _fail(tensor, index, f"expected {tensor.datatype} in `{field}`, got it in `{', '.join(filled)}`")
    elements = getattr(tensor.contents, field)
    if len(elements) != prod(shape):
        raise _fail(tensor, index, f"expected shape {list(shape)}, got {len(elements)} elements")
    try:
        return Tensor(tensor.name, tensor.datatype, _array(elements, dtype).reshape(shape))
    except OverflowError:
        raise _fail(tensor, index, f"expected {tensor.datatype}, got a number out of its range") from None
    except ValueError:
        raise _fail(tensor, index, f"shape {list(shape)} is too large") from None


def _array(elements: Sequence[Any], dtype: np.dtype[Any]) -> Array:
    """The elements as an array, made in pieces between which other threads run."""
    if dtype.kind == "O":
        array = np.empty(len(elements), object)
        array[:] = list(elements)
        return array
    if len(elements) <= _PIECE:
        return np.array(list(elements), dtype)
    starts = range(0, len(elements), _PIECE)
    return np.concatenate([np.array(elements[start : start + _PIECE], dtype) for start in starts])


class ResponseEncoder:
    """Encodes the responses of one model."""

    def __init__(self, model_name: str, model_version: str) -> None:
        self._name = model_name
        self._version = model_version

    def encode(self, request: InferRequest, response: InferResponse) -> pb.ModelInferResponse:
        """The message; contents are raw if the request's were, or if a datatype has no typed field."""
        raw = request.binary_output or any(tensor.datatype == "FP16" for tensor in response.outputs)
        message = pb.ModelInferResponse(model_name=self._name, model_version=self._version)
        message.id = response.id or request.id or ""
        for tensor in response.outputs:
            output = message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
            if tensor.content_type:
                output.parameters[CONTENT_TYPE].string_param = tensor.content_type
            if raw:
                message.raw_output_contents.append(elements_binary(tensor.array))
            else:
                getattr(output.contents, CONTENTS[tensor.datatype]).extend(_elements(tensor))
        for name, value in response.parameters.items():
            _set_parameter(message.parameters[name], value)
        return message


def _elements(tensor: Tensor) -> list[Any]:
    elements: list[Any] = tensor.array.ravel().tolist()
    if tensor.datatype == "BYTES":
        return [e.encode() if isinstance(e, str) else e for e in elements]
    return elements


def _set_parameter(parameter: pb.InferParameter, value: str | int | float | bool) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    else:
        parameter.string_param = value
