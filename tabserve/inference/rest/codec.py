"""Decode REST bodies to requests, and encode responses: JSON and the binary tensor data extension."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from math import prod
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, cast

import msgspec
import numpy as np
import orjson

from tabserve.arrays import Array
from tabserve.inference.bounds import LARGE_BYTES, UNBOUNDED, Bounds, holds_more
from tabserve.inference.content_types import CONTENT_TYPE, check_output, check_request, misfit
from tabserve.inference.errors import InvalidRequest, quoted, shortened
from tabserve.inference.pieces import decoded
from tabserve.inference.tensors import (
    DATATYPES,
    LITTLE_ENDIAN,
    MAX_DIMENSIONS,
    InferRequest,
    InferResponse,
    Parameters,
    RequestedOutput,
    Tensor,
    binary_elements,
    elements_binary,
    text,
)

_Dimension = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class _Input(msgspec.Struct, gc=False):
    name: str
    shape: list[_Dimension]
    datatype: str
    parameters: Parameters | None = None
    data: Any = msgspec.UNSET


class _AnyInput(_Input, gc=False):
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _FlatInput(_Input, gc=False):
    data: list[float | str] | msgspec.UnsetType = msgspec.UNSET


class _Output(msgspec.Struct, gc=False):
    name: str
    parameters: Parameters | None = None


_I = TypeVar("_I", bound=_Input)


class _Request(msgspec.Struct, Generic[_I], gc=False):
    inputs: Annotated[list[_I], msgspec.Meta(min_length=1)]
    id: str | None = None
    outputs: list[_Output] | None = None
    parameters: Parameters | None = None


_decode = msgspec.json.Decoder(_Request[_AnyInput]).decode
_decode_flat = msgspec.json.Decoder(_Request[_FlatInput]).decode
_leading_brackets = re.compile(rb"[\s\[]*").match


class _NotFlat(Exception):
    """The request is not in the simplest form, or not valid."""


def decode_request(body: bytes, json_size: bytes | None = None, bounds: Bounds = UNBOUNDED) -> InferRequest:
    """The request in a body; `json_size` is the header Inference-Header-Content-Length, if there is one.

    Raises InvalidRequest for anything that does not follow inference_rest.md or Triton's extension_binary_data.md, and
    RequestTooLarge for what goes beyond the bounds, before it is decoded.
    """
    json_part, binary_part = (body, b"") if json_size is None else _split(body, json_size)
    if len(json_part) > LARGE_BYTES:
        bounds.check_infer(json_part)
    else:
        try:  # floats and texts in flat arrays, which most requests are, in one pass
            return _request(_decode_flat(json_part), binary_part, _flat_tensor, bounds)
        except (_NotFlat, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
    tensor_of = partial(_json_tensor, width=bounds.width)
    return _request(decode_json(_decode, json_part), binary_part, tensor_of, bounds)


def _request(
    raw: _Request[_I], binary_part: bytes, tensor_of: Callable[[_I, int], Tensor], bounds: Bounds
) -> InferRequest:
    bounds.check_inputs(len(raw.inputs))
    for one in raw.inputs:
        bounds.check_shape(one.shape)
    if binary_part or any(one.parameters for one in raw.inputs):
        inputs = _binary_or(tensor_of, raw.inputs, binary_part)
        _check_content_types(raw.inputs)
    else:
        inputs = tuple(tensor_of(one, at) for at, one in enumerate(raw.inputs))
    parameters = raw.parameters or {}
    if CONTENT_TYPE in parameters:
        check_request(parameters[CONTENT_TYPE], [(tensor.datatype, tensor.array.shape) for tensor in inputs])
    return InferRequest(
        inputs=inputs,
        id=raw.id,
        outputs=tuple(_requested(output) for output in raw.outputs) if raw.outputs else (),
        parameters=parameters,
        binary_output=parameters.get("binary_data_output") is True,
    )


def _binary_or(tensor_of: Callable[[_I, int], Tensor], inputs: Sequence[_I], binary_part: bytes) -> tuple[Tensor, ...]:
    """The tensors, taken from the binary part if their parameters say so."""
    sizes = [_binary_size(one, at) for at, one in enumerate(inputs)]
    expected = sum(size for size in sizes if size)
    if expected != len(binary_part):
        raise InvalidRequest(f"binary data: expected {expected} bytes after the JSON, got {len(binary_part)}")
    tensors, start = [], 0
    for at, (one, size) in enumerate(zip(inputs, sizes, strict=True)):
        if size is None:
            tensors.append(tensor_of(one, at))
        else:
            tensors.append(_binary_tensor(one, at, binary_part[start : start + size]))
            start += size
    return tuple(tensors)


def _check_content_types(inputs: Sequence[_Input]) -> None:
    for at, one in enumerate(inputs):
        if one.parameters and CONTENT_TYPE in one.parameters:
            problem = misfit(one.parameters[CONTENT_TYPE], one.datatype)
            if problem is not None:
                raise _fail(one, at, problem)


def decode_json(decode: Any, body: bytes | msgspec.Raw) -> Any:
    """The body, decoded with `decode` of a msgspec decoder. Raises InvalidRequest if it is malformed."""
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error)) from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    except UnicodeDecodeError:
        raise InvalidRequest("the body is not valid UTF-8") from None
    except RecursionError:
        raise InvalidRequest("the JSON is nested too deeply") from None


def _split(body: bytes, json_size: bytes) -> tuple[bytes, bytes]:
    if not json_size.isdigit() or len(json_size) > 18 or int(json_size) > len(body):
        raise InvalidRequest(f"Inference-Header-Content-Length: expected 0 to {len(body)} (the length of the body)")
    size = int(json_size)
    return body[:size], body[size:]


def _requested(output: _Output) -> RequestedOutput:
    if not output.parameters:
        return RequestedOutput(output.name)
    check_output(output.parameters.get(CONTENT_TYPE, ""), output.name)
    binary = output.parameters.get("binary_data")
    return RequestedOutput(output.name, binary if isinstance(binary, bool) else None)


def _fail(tensor: _Input, index: int, problem: str) -> InvalidRequest:
    return InvalidRequest(f"input `{shortened(tensor.name)}`: {problem} - at `inputs[{index}]`")


def _dtype(tensor: _Input, index: int) -> np.dtype[Any]:
    dtype = DATATYPES.get(tensor.datatype)
    if dtype is None:
        raise _fail(tensor, index, f"expected a datatype of {', '.join(DATATYPES)}, got {quoted(tensor.datatype)}")
    if len(tensor.shape) > MAX_DIMENSIONS:
        raise _fail(tensor, index, f"expected at most {MAX_DIMENSIONS} dimensions, got {len(tensor.shape)}")
    return dtype


def _binary_size(tensor: _Input, index: int) -> int | None:
    size = tensor.parameters.get("binary_data_size") if tensor.parameters else None
    if size is None:
        return None
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise _fail(tensor, index, "expected binary_data_size to be a number of bytes")
    if tensor.data is not msgspec.UNSET:
        raise _fail(tensor, index, "expected either `data` or `binary_data_size`, got both")
    return size


def _binary_tensor(tensor: _Input, index: int, data: bytes) -> Tensor:
    dtype = _dtype(tensor, index)
    try:
        return Tensor(tensor.name, tensor.datatype, binary_elements(data, dtype, tensor.shape))
    except ValueError as error:
        raise _fail(tensor, index, str(error)) from None


def _flat_tensor(tensor: _FlatInput, _: int) -> Tensor:
    """A tensor of a flat input. Raises _NotFlat for anything that `_json_tensor` must read or refuse."""
    dtype, data = DATATYPES.get(tensor.datatype), tensor.data
    if dtype is None or dtype.kind not in "fO" or data is msgspec.UNSET or len(tensor.shape) > MAX_DIMENSIONS:
        raise _NotFlat
    try:
        array = _packed(data, dtype) if dtype.kind == "f" else _encoded(cast("list[str]", data))
        return Tensor(tensor.name, tensor.datatype, array.reshape(tensor.shape))
    except (struct.error, OverflowError, AttributeError, ValueError):
        raise _NotFlat from None


def _json_tensor(tensor: _AnyInput, index: int, width: int) -> Tensor:
    dtype = _dtype(tensor, index)
    if tensor.data is msgspec.UNSET:
        raise _fail(tensor, index, "expected `data`, or `binary_data_size` in its parameters, got neither")
    brackets = _leading_brackets(tensor.data)
    depth = brackets.group().count(b"[") if brackets else 0
    if not 1 <= depth <= MAX_DIMENSIONS:
        raise _fail(tensor, index, f"expected `data` to be an array of up to {MAX_DIMENSIONS} dimensions")
    decode = _elements_decoder(dtype.kind, depth)
    try:
        if len(tensor.data) > LARGE_BYTES:
            _check_counts(tensor, tensor.data, depth, index)
            array = np.concatenate([_array(some, dtype) for some in decoded(decode, tensor.data, width)])
        else:
            array = _array(decode(tensor.data), dtype)
    except msgspec.ValidationError as error:
        raise _fail(tensor, index, f"expected {tensor.datatype}: {error}") from None
    except msgspec.DecodeError as error:
        raise _fail(tensor, index, f"`data` is not valid JSON: {error}") from None
    except (OverflowError, FloatingPointError):
        raise _fail(tensor, index, f"expected {tensor.datatype}, got a number out of its range") from None
    except ValueError:
        raise _fail(tensor, index, "`data` is ragged or not valid UTF-8") from None
    return Tensor(tensor.name, tensor.datatype, _shaped(array, tensor, index))


def _check_counts(tensor: _AnyInput, data: bytes, depth: int, index: int) -> None:
    """Refuse data with more elements, or more arrays, than the shape says, before they are decoded."""
    shape = tensor.shape
    expected = prod(shape)
    if holds_more(data, b",", max(expected, *shape)):
        raise _fail(tensor, index, f"expected {expected} elements for shape {shape}, got more")
    arrays = 1 if depth == 1 else sum(prod(shape[:at]) for at in range(len(shape)))
    if holds_more(data, b"[", arrays):
        raise _fail(tensor, index, f"expected {arrays} arrays for shape {shape}, got more")


def _shaped(array: Array, tensor: _Input, index: int) -> Array:
    shape = tuple(tensor.shape)
    if array.shape == shape:
        return array
    expected = prod(shape)
    if array.size != expected:
        problem = f"expected {expected} elements for shape {list(shape)}, got {array.size}"
        raise _fail(tensor, index, problem)
    if array.ndim != 1 and array.size:
        raise _fail(tensor, index, f"expected shape {list(shape)}, got {list(array.shape)}")
    try:
        return array.reshape(shape)
    except ValueError:
        raise _fail(tensor, index, f"shape {list(shape)} is too large") from None


def _array(elements: list[Any], dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "f":
        return _floats(elements, dtype)
    if dtype.kind == "O":
        return _bytes_array(elements)
    return np.array(elements, dtype)


def _floats(elements: list[Any], dtype: np.dtype[Any]) -> Array:
    """Floating point numbers as an array. Raises OverflowError or FloatingPointError if a number is out of range."""
    try:
        return _packed(elements, dtype)
    except struct.error:  # some are lists or null
        with np.errstate(over="raise"):
            return np.array(elements, dtype)


def _packed(elements: list[Any], dtype: np.dtype[Any]) -> Array:
    """Numbers as floats, faster than numpy. Raises OverflowError, and struct.error if some are not numbers."""
    return np.frombuffer(_packer(len(elements), dtype.char)(*elements), LITTLE_ENDIAN[dtype])


@lru_cache(maxsize=256)
def _packer(count: int, char: str) -> Callable[..., bytes]:
    return struct.Struct(f"<{count}{char}").pack


def _bytes_array(elements: list[Any]) -> Array:
    array = np.array(elements, np.dtypes.StringDType())  # finds the shape without taking strings for sequences
    return _encoded(array.ravel().tolist()).reshape(array.shape)


def _encoded(texts: list[str]) -> Array:
    """Texts as `bytes`. Raises UnicodeEncodeError for half a surrogate pair, AttributeError for anything but text."""
    array = np.empty(len(texts), object)
    array[:] = [text.encode() for text in texts]
    return array


_ELEMENT_TYPES: dict[str, Any] = {"f": float | None, "i": int, "u": int, "b": bool, "O": str}


@cache
def _elements_decoder(kind: str, depth: int) -> Any:
    """A decoder for arrays nested `depth` deep; a null among floating point numbers is a missing value (NaN)."""
    nested = _ELEMENT_TYPES[kind]
    for _ in range(depth):
        nested = list.__class_getitem__(nested)
    return msgspec.json.Decoder(nested).decode


class EncodedResponse(NamedTuple):
    """A response body; `json_size` is set if binary tensors follow the JSON."""

    body: bytes
    json_size: int | None


class ResponseEncoder:
    """Encodes the responses of one model; what never changes is encoded once."""

    def __init__(self, model_name: str, model_version: str) -> None:
        self._head = orjson.dumps({"model_name": model_name, "model_version": model_version})[:-1]

    def encode(self, request: InferRequest, response: InferResponse) -> EncodedResponse:
        """The body; outputs are binary if the request asked for it.

        Numbers are written so that reading them back gives the same bits; NaN and infinities are written as null.
        """
        head, id_ = self._head, response.id or request.id
        if id_ is not None:
            head = b'%b,"id":%b' % (head, orjson.dumps(id_))
        if response.parameters:
            head = b'%b,"parameters":%b' % (head, orjson.dumps(response.parameters))
        if not request.binary_output and not request.outputs:
            outputs = b",".join([_json_output(tensor) for tensor in response.outputs])
            return EncodedResponse(b'%b,"outputs":[%b]}' % (head, outputs), None)
        return self._encode_some_binary(head, response, _binary_outputs(request))

    @staticmethod
    def _encode_some_binary(head: bytes, response: InferResponse, binary: frozenset[str]) -> EncodedResponse:
        tails = [elements_binary(t.array) for t in response.outputs if t.name in binary]
        sizes = iter(tails)
        outputs = [
            _binary_output(t, len(next(sizes))) if t.name in binary else _json_output(t) for t in response.outputs
        ]
        body = b'%b,"outputs":[%b]}' % (head, b",".join(outputs))
        return EncodedResponse(b"".join([body, *tails]), len(body)) if tails else EncodedResponse(body, None)


class _All(frozenset[str]):
    def __contains__(self, _: object) -> bool:
        return True


_ALL = _All()


def _binary_outputs(request: InferRequest) -> frozenset[str]:
    if all(output.binary is None for output in request.outputs):
        return _ALL if request.binary_output else frozenset()
    return frozenset(o.name for o in request.outputs if (request.binary_output if o.binary is None else o.binary))


@lru_cache(maxsize=1024)
def _output_head(name: str, datatype: str, shape: tuple[int, ...], content_type: str = "") -> bytes:
    parameters = {"parameters": {CONTENT_TYPE: content_type}} if content_type else {}
    return orjson.dumps({"name": name, "datatype": datatype, **parameters})[:-1] + f',"shape":{list(shape)}'.encode()


def _json_output(tensor: Tensor) -> bytes:
    array = tensor.array
    if array.dtype.kind == "O":
        data = orjson.dumps([text(element) for element in array.ravel()])
    else:
        data = orjson.dumps(array.ravel(), option=orjson.OPT_SERIALIZE_NUMPY)
    return b'%b,"data":%b}' % (_output_head(tensor.name, tensor.datatype, array.shape, tensor.content_type), data)


def _binary_output(tensor: Tensor, size: int) -> bytes:
    head = _output_head(tensor.name, tensor.datatype, tensor.array.shape)
    return b'%b,"parameters":{"binary_data_size":%d}}' % (head, size)
