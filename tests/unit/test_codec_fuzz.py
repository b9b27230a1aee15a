"""The codecs answer any bytes with a 4xx or a right answer."""

from __future__ import annotations

import json
import struct
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf.message import DecodeError
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tabserve.inference.errors import InferenceError, InvalidRequest
from tabserve.inference.grpc import codec as grpc_codec
from tabserve.inference.grpc import open_inference_pb2 as pb
from tabserve.inference.rest import codec as rest_codec
from tabserve.inference.tensors import DATATYPES, MAX_DIMENSIONS, InferRequest, InferResponse, Tensor

FUZZ = settings(derandomize=True, deadline=None, max_examples=300)
ROUND_TRIP = settings(derandomize=True, deadline=None, max_examples=60)

LARGEST_FP32 = float(np.finfo(np.float32).max)
LEAST_BEYOND_FP32 = 2.0**128 - 2.0**103
"""The least number that does not round to FP32's largest: half a step beyond it."""

NUMBERS = [datatype for datatype in DATATYPES if datatype != "BYTES"]
REST = rest_codec.ResponseEncoder("m", "1")
GRPC = grpc_codec.ResponseEncoder("m", "1")

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


ELEMENTS: dict[str, st.SearchStrategy[Any]] = {
    "b": st.booleans(),
    "u": st.integers(0, 255) | st.integers(-1, 2**64),
    "i": st.integers(-128, 127) | st.integers(-(2**63) - 1, 2**63),
    "f": st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.none(),
    "O": st.text(max_size=5),
}
PARAMETERS = st.dictionaries(
    st.sampled_from(["binary_data_size", "binary_data_output", "binary_data", "x"]),
    st.integers(-1, 40) | st.booleans() | ANY_JSON,
    max_size=2,
)
OUTPUT = st.fixed_dictionaries({"name": st.text(max_size=4)}, optional={"parameters": PARAMETERS})


@st.composite
def damaged(draw: st.DrawFn, valid: st.SearchStrategy[dict[str, Any]], odds: int) -> dict[str, Any]:
    """A valid object; one in `odds` has a key that is missing or holds anything."""
    content = dict(draw(valid))
    if draw(st.integers(1, odds)) == odds:
        key = draw(st.sampled_from(sorted(content)))
        content[key] = draw(ANY_JSON)
        if draw(st.booleans()):
            del content[key]
    return content


@st.composite
def valid_inputs(draw: st.DrawFn) -> dict[str, Any]:
    """An input whose shape and data agree; some elements are out of the datatype's range."""
    datatype = draw(st.sampled_from([*DATATYPES]))
    shape = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    kind = DATATYPES[datatype].kind
    data = draw(st.lists(ELEMENTS[kind], min_size=prod(shape), max_size=prod(shape)))
    nested = draw(st.booleans())
    return {
        "name": draw(st.text(max_size=4)),
        "datatype": datatype,
        "shape": shape,
        "data": np.array([*data, None], object)[:-1].reshape(shape).tolist() if nested else data,
    }


INPUTS = st.lists(damaged(valid_inputs(), 5), min_size=1, max_size=3)
REQUESTS = damaged(
    st.fixed_dictionaries(
        {"inputs": INPUTS},
        optional={"id": st.text(max_size=4), "outputs": st.lists(OUTPUT, max_size=2), "parameters": PARAMETERS},
    ),
    10,
)


def assert_well_formed(request: InferRequest) -> None:
    """Assert that every tensor has the type that its datatype names."""
    assert request.inputs
    assert all(t.array.dtype == DATATYPES[t.datatype] and t.array.ndim <= MAX_DIMENSIONS for t in request.inputs)
    elements = [element for t in request.inputs if t.datatype == "BYTES" for element in t.array.ravel()]
    assert all(isinstance(element, bytes) for element in elements)


def decoded(body: bytes, json_size: bytes | None = None) -> InferRequest | None:
    """The well-formed request, None if it was refused with a 4xx."""
    try:
        request = rest_codec.decode_request(body, json_size)
    except InferenceError as refusal:
        assert_clients_fault(refusal)
        return None
    assert_well_formed(request)
    return request


def assert_clients_fault(refusal: InferenceError) -> None:
    """Assert that the refusal is the client's fault, and says so in words."""
    assert 400 <= refusal.http_status < 500, refusal
    assert refusal.grpc_status == "INVALID_ARGUMENT"
    assert refusal.message


@FUZZ
@given(
    body=st.binary(max_size=200), json_size=st.none() | st.binary(max_size=8) | st.integers(0, 210).map(b"%d".__mod__)
)
def test_any_bytes_are_refused_or_read(body: bytes, json_size: bytes | None) -> None:
    decoded(body, json_size)


@FUZZ
@given(content=REQUESTS)
def test_a_request_that_is_read_says_what_its_json_says(content: dict[str, Any]) -> None:
    request = decoded(json.dumps(content).encode("utf-8", "surrogatepass"))
    assume(request is not None)
    assert request is not None
    for tensor, given_tensor in zip(request.inputs, content["inputs"], strict=True):
        assert tensor.name == given_tensor["name"]
        assert list(tensor.array.shape) == given_tensor["shape"]
        assert same_elements(tensor, given_tensor["data"])


def same_elements(tensor: Tensor, data: list[Any]) -> bool:
    """Whether the tensor's elements equal the JSON data; null is NaN."""
    flat = np.array(data, object).ravel().tolist()
    if tensor.datatype == "BYTES":
        return [element.decode() for element in tensor.array.ravel()] == flat
    expected = np.array([np.nan if element is None else element for element in flat], tensor.array.dtype)
    return np.array_equal(tensor.array.ravel(), expected, equal_nan=tensor.array.dtype.kind == "f")


@FUZZ
@given(content=REQUESTS, at=st.integers(0, 400), junk=st.binary(max_size=6), cut=st.integers(0, 6))
def test_damaged_requests_are_refused_or_read(content: dict[str, Any], at: int, junk: bytes, cut: int) -> None:
    body = json.dumps(content).encode("utf-8", "surrogatepass")
    at %= len(body) + 1
    decoded(body[:at] + junk + body[at + cut :])


@FUZZ
@given(content=REQUESTS, tail=st.binary(max_size=60), shift=st.integers(-2, 2))
def test_binary_tails_are_refused_or_read(content: dict[str, Any], tail: bytes, shift: int) -> None:
    part = json.dumps(content).encode("utf-8", "surrogatepass")
    decoded(part + tail, b"%d" % max(0, len(part) + shift))


@FUZZ
@given(
    datatype=st.sampled_from([*DATATYPES]),
    shape=st.lists(st.integers(0, 2**33) | st.integers(0, 3), max_size=10),
    tail=st.binary(max_size=40),
)
def test_binary_tensors_with_any_shape_are_refused_or_read(datatype: str, shape: list[int], tail: bytes) -> None:
    tensor = {"name": "x", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(tail)}}
    part = json.dumps({"inputs": [tensor]}).encode()
    decoded(part + tail, b"%d" % len(part))


@pytest.mark.parametrize("data", [[1.0, LEAST_BEYOND_FP32], [[1.0, LEAST_BEYOND_FP32]], [None, LEAST_BEYOND_FP32]])
def test_a_number_out_of_range_is_refused_and_the_largest_within_read(data: list[Any]) -> None:
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": data}
    with pytest.raises(InvalidRequest, match="expected FP32, got a number out of its range"):
        rest_codec.decode_request(json.dumps({"inputs": [tensor]}).encode())
    within = json.dumps({"inputs": [tensor]}).replace(str(LEAST_BEYOND_FP32), str(LARGEST_FP32)).encode()
    assert rest_codec.decode_request(within).inputs[0].array.ravel()[1] == LARGEST_FP32


@pytest.mark.parametrize("depth", [9, 100, 100_000])
@pytest.mark.parametrize(
    "opening", [b'{"inputs":', b"[", b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":']
)
def test_deep_nesting_is_refused(opening: bytes, depth: int) -> None:
    assert decoded(opening + b"[" * depth + b"]" * depth) is None
    assert decoded(opening + b'{"a":' * depth) is None


def grpc_decoded(message: pb.ModelInferRequest) -> InferRequest | None:
    """A message's well-formed request, None if it was refused with a 4xx."""
    try:
        request = grpc_codec.decode_request(message)
    except InferenceError as refusal:
        assert_clients_fault(refusal)
        return None
    assert_well_formed(request)
    return request


def parsed(data: bytes) -> pb.ModelInferRequest:
    """The message in the bytes, an empty one if there is none."""
    try:
        return pb.ModelInferRequest.FromString(data)
    except DecodeError:
        return pb.ModelInferRequest()


CONTENTS: dict[str, st.SearchStrategy[Any]] = {
    "bool_contents": st.booleans(),
    "int_contents": st.integers(-128, 127) | st.integers(-(2**31), 2**31 - 1),
    "int64_contents": st.integers(-(2**63), 2**63 - 1),
    "uint_contents": st.integers(0, 255) | st.integers(0, 2**32 - 1),
    "uint64_contents": st.integers(0, 2**64 - 1),
    "fp32_contents": st.floats(width=32),
    "fp64_contents": st.floats(),
    "bytes_contents": st.binary(max_size=4),
}


@st.composite
def grpc_inputs(draw: st.DrawFn) -> pb.ModelInferRequest.InferInputTensor:
    """An input whose shape and contents mostly agree."""
    datatype = draw(st.sampled_from([*DATATYPES, "FLOAT"]))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    count = max(0, prod(shape) + draw(st.sampled_from([0, 0, 0, 0, 1, -1])))
    right = grpc_codec.CONTENTS.get(datatype, "fp32_contents")
    field = draw(st.sampled_from([right, right, right, *CONTENTS]))
    contents = {field: draw(st.lists(CONTENTS[field], min_size=count, max_size=count))}
    odd = draw(st.sampled_from([[], [], [], [-1], [2**62, 2**62]]))
    return pb.ModelInferRequest.InferInputTensor(
        name=draw(st.text(max_size=4)),
        datatype=datatype,
        shape=shape + odd,
        contents=draw(st.sampled_from([pb.InferTensorContents(**contents), None])),
    )


@FUZZ
@given(data=st.binary(max_size=120))
def test_any_message_bytes_are_refused_or_read(data: bytes) -> None:
    grpc_decoded(parsed(data))


@FUZZ
@given(inputs=st.lists(grpc_inputs(), max_size=3), raws=st.just([]) | st.lists(st.binary(max_size=32), max_size=3))
def test_any_tensors_of_a_message_are_refused_or_read(
    inputs: list[pb.ModelInferRequest.InferInputTensor], raws: list[bytes]
) -> None:
    grpc_decoded(pb.ModelInferRequest(inputs=inputs, raw_input_contents=raws))
    grpc_decoded(parsed(pb.ModelInferRequest(inputs=inputs, raw_input_contents=raws).SerializeToString()[:-1]))


def tensors(datatype: str) -> st.SearchStrategy[npt.NDArray[Any]]:
    """Arrays of a datatype with up to three dimensions, also empty ones."""
    shape = arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3)
    if datatype == "BYTES":
        return arrays.arrays(np.dtype(object), shape, elements=st.text(max_size=5).map(str.encode), fill=st.just(b""))
    return arrays.arrays(
        DATATYPES[datatype], shape, elements=arrays.from_dtype(DATATYPES[datatype], allow_infinity=False)
    )


def raw(array: npt.NDArray[Any]) -> bytes:
    """The array's bytes in the form of the binary tensor data extension."""
    if array.dtype.kind != "O":
        return array.tobytes()
    return b"".join(struct.pack("<I", len(element)) + element for element in array.ravel())


def plain(array: npt.NDArray[Any]) -> list[Any]:
    """The array's elements in JSON's form, with null for NaN."""
    flat = [element.decode() if isinstance(element, bytes) else element for element in array.ravel().tolist()]
    return [None if element != element else element for element in flat]


def same_bits(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> bool:
    """Whether both are the same array, where a NaN is any NaN."""
    if left.dtype.kind == "f":
        left, right = (np.where(np.isnan(array), array.dtype.type(np.nan), array) for array in (left, right))
    return left.dtype == right.dtype and left.shape == right.shape and raw(left) == raw(right)


@pytest.mark.parametrize("datatype", DATATYPES)
@ROUND_TRIP
@given(data=st.data())
def test_json_carries_every_bit(datatype: str, data: st.DataObject) -> None:
    array = data.draw(tensors(datatype))
    content = {"name": "x", "datatype": datatype, "shape": array.shape, "data": plain(array)}
    request = decoded(json.dumps({"inputs": [content]}).encode())
    assert request is not None
    assert same_bits(request.inputs[0].array, array)
    answer = json.loads(REST.encode(request, InferResponse(request.inputs)).body)["outputs"][0]
    assert answer == {**content, "shape": list(array.shape)} or datatype in ("FP16", "FP32")
    back = decoded(json.dumps({"inputs": [answer]}).encode())
    assert back is not None
    assert same_bits(back.inputs[0].array, array)


@pytest.mark.parametrize("datatype", DATATYPES)
@ROUND_TRIP
@given(data=st.data())
def test_binary_tensors_carry_every_bit(datatype: str, data: st.DataObject) -> None:
    array = data.draw(tensors(datatype))
    size = {"binary_data_size": len(raw(array))}
    tensor = {"name": "x", "datatype": datatype, "shape": array.shape, "parameters": size}
    part = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    request = decoded(part + raw(array), b"%d" % len(part))
    assert request is not None
    encoded = REST.encode(request, InferResponse(request.inputs))
    assert encoded.json_size is not None
    assert encoded.body[encoded.json_size :] == raw(array)
    assert json.loads(encoded.body[: encoded.json_size])["outputs"][0]["parameters"] == size


@pytest.mark.parametrize("datatype", DATATYPES)
@ROUND_TRIP
@given(data=st.data())
def test_raw_contents_carry_every_bit(datatype: str, data: st.DataObject) -> None:
    array = data.draw(tensors(datatype))
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=array.shape)
    request = grpc_decoded(pb.ModelInferRequest(inputs=[tensor], raw_input_contents=[raw(array)]))
    assert request is not None
    answer = GRPC.encode(request, InferResponse(request.inputs))
    assert list(answer.raw_output_contents) == [raw(array)]
    assert list(answer.outputs[0].shape) == list(array.shape)


@pytest.mark.parametrize("datatype", grpc_codec.CONTENTS)
@ROUND_TRIP
@given(data=st.data())
def test_typed_contents_carry_every_bit(datatype: str, data: st.DataObject) -> None:
    array = data.draw(tensors(datatype))
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=array.shape)
    getattr(tensor.contents, grpc_codec.CONTENTS[datatype]).extend(array.ravel().tolist())
    request = grpc_decoded(pb.ModelInferRequest(inputs=[tensor]))
    assert request is not None
    assert same_bits(request.inputs[0].array, array)
    answer = GRPC.encode(request, InferResponse((Tensor("x", datatype, array),)))
    back = grpc_decoded(pb.ModelInferRequest.FromString(renamed(answer)))
    assert back is not None
    assert same_bits(back.inputs[0].array, array)


def renamed(answer: pb.ModelInferResponse) -> bytes:
    """An answer's outputs as the inputs of a request: both messages have the same fields."""
    outputs = [output.SerializeToString() for output in answer.outputs]
    return pb.ModelInferRequest(
        inputs=[pb.ModelInferRequest.InferInputTensor.FromString(output) for output in outputs]
    ).SerializeToString()
