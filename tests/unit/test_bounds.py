"""The most that a request can hold is counted right, and nothing within it is refused."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabserve.inference.bounds import LARGE_BYTES, SLACK, Bounds, holds_more
from tabserve.inference.errors import InferenceError, InvalidRequest, RequestTooLarge
from tabserve.inference.grpc import open_inference_pb2 as pb
from tabserve.inference.grpc.codec import decode_request
from tabserve.inference.grpc.fields import check_fields

BOUNDS = Bounds(rows=1000, width=100, inputs=20)
TEXTS = st.text(st.sampled_from('a,[{\\"\n'), max_size=12)
VALUES = st.recursive(
    TEXTS | st.integers(0, 9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=20,
)


def marks(content: Any) -> dict[str, int]:
    """The commas, opening brackets and opening braces in a JSON value, outside its strings."""
    if not isinstance(content, list | dict):
        return {",": 0, "[": 0, "{": 0}
    inner = [marks(each) for each in (content.values() if isinstance(content, dict) else content)]
    found = {mark: sum(each[mark] for each in inner) for mark in ",[{"}
    found["{" if isinstance(content, dict) else "["] += 1
    found[","] += max(0, len(content) - 1)
    return found


@given(VALUES, st.integers(1, 7))
def test_commas_and_brackets_are_counted_outside_of_strings(content: Any, piece_bytes: int) -> None:
    text, expected = json.dumps(content).encode(), marks(content)

    for mark, count in expected.items():
        assert not holds_more(text, mark.encode(), count, piece_bytes)
        assert count == 0 or holds_more(text, mark.encode(), count - 1, piece_bytes)
    both = expected["["] + expected["{"]
    assert not holds_more(text, b"{[", both, piece_bytes)
    assert both == 0 or holds_more(text, b"{[", both - 1, piece_bytes)


def test_texts_full_of_commas_and_brackets_are_within_the_bounds() -> None:
    text = ",[{" * (LARGE_BYTES // 3 // 100)
    body = {"inputs": [{"name": "t", "datatype": "BYTES", "shape": [100], "data": [text] * 100}]}
    BOUNDS.check_infer(json.dumps(body).encode())
    BOUNDS.check_predict(json.dumps({"instances": [{"t": text}] * 100}).encode())


def large(body: bytes) -> bytes:
    """The same JSON, made large with white space."""
    return body + b" " * LARGE_BYTES


def test_as_many_rows_values_and_inputs_as_there_may_be_are_within_the_bounds() -> None:
    matrix = [[1] * BOUNDS.width] * BOUNDS.rows
    inputs = [{"name": "a", "datatype": "FP32", "shape": [1], "data": [1], "parameters": {"b": 1}}] * BOUNDS.inputs

    BOUNDS.check_predict(large(json.dumps({"instances": matrix}).encode()))
    BOUNDS.check_predict(large(json.dumps({"instances": [{str(at): 1 for at in range(100)}] * 1000}).encode()))
    BOUNDS.check_infer(large(json.dumps({"inputs": [{"data": matrix}]}).encode()))
    BOUNDS.check_infer(large(json.dumps({"inputs": inputs}).encode()))
    BOUNDS.check_shape((BOUNDS.rows, BOUNDS.width))


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [' + b"[]," * 500_000 + b"[]]}",
        b'{"instances": [' + b"{}," * 500_000 + b"{}]}",
        b'{"instances": [[' + b"1," * 500_000 + b"1]]}",
    ],
    ids=["arrays", "objects", "values"],
)
def test_v1_bodies_of_more_are_refused(body: bytes) -> None:
    with pytest.raises(RequestTooLarge, match="expected at most 1000 rows"):
        BOUNDS.check_predict(body)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"inputs": [{"data": [' + b"[1]," * 200_000 + b"[1]]}]}", RequestTooLarge),
        (b'{"inputs": [' + b"{}," * 200_000 + b"{}]}", InvalidRequest),
    ],
    ids=["values", "inputs"],
)
def test_v2_bodies_of_more_are_refused(body: bytes, kind: type[InferenceError]) -> None:
    with pytest.raises(kind, match="expected at most"):
        BOUNDS.check_infer(body)


def message(**contents: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m", id="x" * LARGE_BYTES)
    request.inputs.add(name="a", datatype="FP64", shape=[1000, 100]).contents.MergeFrom(
        pb.InferTensorContents(**contents)
    )
    return request


@pytest.mark.parametrize(
    "contents",
    [{"fp64_contents": [1.5] * 100_000}, {"int64_contents": [1] * 100_000}, {"bytes_contents": [b"a"] * 1000}],
    ids=["doubles", "integers", "bytes"],
)
def test_messages_of_as_much_as_there_may_be_are_within_the_bounds(contents: dict[str, Any]) -> None:
    check_fields(message(**contents).SerializeToString(), BOUNDS)


def field(number: int, content: bytes) -> bytes:
    """A field that has a length."""
    size, lengths = len(content), bytearray()
    while size >= 0x80:
        lengths.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *lengths, size]) + content


MANY = 300_000


@pytest.mark.parametrize(
    "data",
    [
        field(5, b"") * MANY,
        field(6, b"") * MANY,
        field(7, b"") * MANY,
        field(4, field(1, b"a")) * MANY,
        b"\xa0\x06\x01" * MANY,
        field(5, field(4, b"") * MANY),
        field(5, field(3, b"\x01" * MANY)),
        field(5, b"\x18\x01" * MANY),
        field(5, field(5, field(8, b"") * MANY)),
        field(5, field(5, field(3, b"\x01" * MANY))),
        field(5, field(5, b"\x18\x01" * MANY)),
    ],
    ids=[
        "inputs",
        "outputs",
        "raw",
        "parameters",
        "unknown",
        "input's parameters",
        "dimensions",
        "unpacked dimensions",
        "bytes",
        "integers",
        "unpacked integers",
    ],
)
def test_messages_of_more_fields_are_refused(data: bytes) -> None:
    with pytest.raises((InvalidRequest, RequestTooLarge), match="expected"):
        check_fields(data, BOUNDS)


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_malformed_messages_are_refused_or_left_to_protobuf(start: bytes, end: bytes) -> None:
    with suppress(InvalidRequest, RequestTooLarge):
        check_fields(start + b"\x0a" + b"\x00" * LARGE_BYTES + end, BOUNDS)


@pytest.mark.parametrize("shape", [[1001, 1], [1, 100_001], [2**31 - 1] * 8])
def test_shapes_of_more_are_refused_whatever_the_contents_are(shape: list[int]) -> None:
    request = pb.ModelInferRequest(model_name="m")
    request.inputs.add(name="a", datatype="FP64", shape=shape)

    with pytest.raises(RequestTooLarge, match="expected at most 1000 rows"):
        decode_request(request, BOUNDS)


def test_the_slack_is_what_names_and_parameters_may_take() -> None:
    parameters = json.dumps({"parameters": {str(at): 1 for at in range(SLACK)}}).encode()
    BOUNDS.check_infer(large(parameters))
