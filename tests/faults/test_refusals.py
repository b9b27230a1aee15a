"""Bad tensors and bad JSON (fault catalogue 1 to 11, and the table of baselines) are a 400 that says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from tabserve.inference.grpc import open_inference_pb2 as pb
from tests.contract.payload import Payload, Tensor
from tests.contract.target import grpc_outputs
from tests.faults.conftest import Subject

JSON = {"Content-Type": "application/json"}


def only(payload: Payload, **changes: Any) -> Payload:
    """The payload of one tensor, with changes."""
    return Payload((replace(payload.tensors[0], **changes),))


def values(payload: Payload, value: float, datatype: str, dtype: Any) -> Payload:
    """The payload with one element of another value, in another datatype."""
    array = np.zeros(payload.tensors[0].array.shape, dtype)
    array[0, 1] = value
    return only(payload, array=array, datatype=datatype)


def narrowed(payload: Payload) -> Payload:
    """The payload with one feature less."""
    return only(payload, array=payload.tensors[0].array[:, :-1])


def widened(payload: Payload) -> Payload:
    """The payload with one feature more."""
    array = payload.tensors[0].array
    return only(payload, array=np.concatenate([array, array[:, :1]], axis=1))


def words(payload: Payload) -> Payload:
    """The payload with text instead of numbers."""
    return only(payload, array=np.full(payload.tensors[0].array.shape, b"one", object), datatype="BYTES")


def truths(payload: Payload) -> Payload:
    """The payload with booleans instead of numbers."""
    return only(payload, array=np.full(payload.tensors[0].array.shape, True), datatype="BOOL")


def columns_of(payload: Payload, lengths: tuple[int, int]) -> Payload:
    """Two inputs with these numbers of rows."""
    return Payload(tuple(Tensor(f"x{i}", "FP64", np.zeros(rows)) for i, rows in enumerate(lengths)))


# What is sent, and words that the refusal must have; `N` is the number of features, `M` one less.
TENSORS: dict[str, tuple[Callable[[Payload], Payload], list[str]]] = {
    "a feature less": (narrowed, ["input-0", "N", "M"]),
    "a feature more": (widened, ["input-0", "N"]),
    "one dimension": (lambda p: only(p, array=p.tensors[0].array[0]), ["input-0", "N"]),
    "three dimensions": (lambda p: only(p, array=p.tensors[0].array[None]), ["input-0", "N"]),
    "text": (words, ["input-0", "BYTES"]),
    "truth values": (truths, ["input-0", "BOOL"]),
    "infinity": (lambda p: values(p, np.inf, "FP64", np.float64), ["input-0", "finite"]),
    "minus infinity": (lambda p: values(p, -np.inf, "FP64", np.float64), ["input-0", "finite"]),
    "a whole number that no FP64 holds": (lambda p: values(p, 2**53 + 1, "INT64", np.int64), ["input-0"]),
    "another name": (lambda p: only(p, name="input-1"), ["input-1"]),
    "no name": (lambda p: only(p, name=""), ["input"]),
    "the same input twice": (lambda p: Payload((*p.tensors, *p.tensors)), ["input"]),
    "an input more": (lambda p: Payload((*p.tensors, Tensor("extra", "FP64", np.zeros((1, 1))))), ["extra"]),
    "inputs of different lengths": (lambda p: columns_of(p, (1, 2)), ["x0"]),
}


@pytest.mark.parametrize("case", TENSORS)
def test_bad_tensors_are_refused_over_rest_and_grpc(subject: Subject, matrix: Payload, case: str) -> None:
    change, expected = TENSORS[case]
    payload = change(matrix.rows(1))
    features = matrix.tensors[0].array.shape[1]
    told = [{"N": str(features), "M": str(features - 1)}.get(word, word) for word in expected]
    for raw in (False, True):
        with pytest.raises(grpc.RpcError) as failure:
            subject.target.call("ModelInfer", payload.message(subject.target.model, typed=not raw))
        assert failure.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert all(word in failure.value.details() for word in told), failure.value.details()
    answer = subject.target.infer_binary(*payload.binary())
    error = answer.assert_error(400, 400)
    assert all(word in error for word in told), error
    assert failure.value.details() == error


def first(content: Any, **changes: Any) -> Any:
    """The JSON request with changed fields in its first input; None removes a field."""
    tensor = {**content["inputs"][0], **changes}
    return {"inputs": [{key: value for key, value in tensor.items() if value is not None}]}


def element(content: Any, value: Any, datatype: str = "FP64") -> Any:
    """The JSON request with its second element changed."""
    data = [1] * len(content["inputs"][0]["data"])
    data[1] = value
    return first(content, data=data, datatype=datatype)


REQUESTS: dict[str, tuple[Callable[[Any], Any], list[str]]] = {
    "no inputs": (lambda c: {}, ["inputs"]),
    "inputs null": (lambda c: {"inputs": None}, ["inputs"]),
    "inputs an object": (lambda c: {"inputs": c["inputs"][0]}, ["inputs"]),
    "inputs empty": (lambda c: {"inputs": []}, ["inputs"]),
    "an input that is none": (lambda c: {"inputs": [5]}, ["inputs[0]"]),
    "no shape": (lambda c: first(c, shape=None), ["shape", "inputs[0]"]),
    "no data": (lambda c: first(c, data=None), ["data", "inputs[0]"]),
    "no datatype": (lambda c: first(c, datatype=None), ["datatype", "inputs[0]"]),
    "an element less": (lambda c: first(c, data=c["inputs"][0]["data"][:-1]), ["input-0", "N", "M"]),
    "an element more": (lambda c: first(c, data=[*c["inputs"][0]["data"], 1.0]), ["input-0", "N"]),
    "ragged rows": (lambda c: first(c, data=[[1.0, 2.0], [1.0]]), ["input-0"]),
    "data an object": (lambda c: first(c, data={"a": 1}), ["input-0", "data"]),
    "data a number": (lambda c: first(c, data=1.0), ["input-0", "data"]),
    "an unknown datatype": (lambda c: first(c, datatype="FLOAT"), ["input-0", "FLOAT", "FP32"]),
    "an output that is none": (lambda c: {**c, "outputs": [{"name": "prediction"}]}, ["prediction", "predict"]),
    "text among numbers": (lambda c: element(c, "12"), ["input-0", "FP64"]),
    "truth among numbers": (lambda c: element(c, True), ["input-0", "FP64"]),
    "a fraction in INT32": (lambda c: element(c, 1.5, "INT32"), ["input-0", "INT32"]),
    "more than an INT32": (lambda c: element(c, 2**31, "INT32"), ["input-0", "INT32"]),
    "more than an INT64": (lambda c: element(c, 2**63, "INT64"), ["input-0", "INT64"]),
    "minus in UINT8": (lambda c: element(c, -1, "UINT8"), ["input-0", "UINT8"]),
    "more than an FP32": (lambda c: element(c, 1e39, "FP32"), ["input-0", "FP32"]),
    "null in INT32": (lambda c: element(c, None, "INT32"), ["input-0", "INT32"]),
    "a whole number of 400 digits": (lambda c: element(c, 10**400), ["input-0"]),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_bad_requests_are_refused(subject: Subject, matrix: Payload, case: str) -> None:
    change, expected = REQUESTS[case]
    features = matrix.tensors[0].array.shape[1]
    error = subject.target.infer(change(matrix.rows(1).json())).assert_error(400, 400)
    told = [{"N": str(features), "M": str(features - 1)}.get(word, word) for word in expected]
    assert all(word in error for word in told), error


def body(payload: Payload, literal: bytes) -> bytes:
    """A JSON request whose second element is this text."""
    return json.dumps(element(payload.rows(1).json(), "@")).encode().replace(b'"@"', literal)


LITERALS = [b"NaN", b"Infinity", b"-Infinity", b"nan", b"1e400", b"-1e400", b"01", b"1.", b".5", b"+1", b"0x10", b"1_0"]


@pytest.mark.parametrize("literal", LITERALS, ids=bytes.decode)
def test_numbers_that_are_not_json_are_refused(subject: Subject, matrix: Payload, literal: bytes) -> None:
    path = f"{subject.target.path}/infer"
    subject.target.http("POST", path, body(matrix, literal), JSON).assert_error(400, 400)


@pytest.mark.parametrize("literal", [b"-0", b"-0.0", b"1e-400", b"5e-324", b"1E2"], ids=bytes.decode)
def test_unusual_numbers_are_answered(subject: Subject, matrix: Payload, literal: bytes) -> None:
    path = f"{subject.target.path}/infer"
    answer = subject.target.http("POST", path, body(matrix, literal), JSON)
    assert answer.status == 200, answer.body
    assert answer.outputs()


def test_a_missing_number_for_a_model_that_takes_none_is_refused(subject: Subject, matrix: Payload) -> None:
    path = f"{subject.target.path}/infer"
    error = subject.target.http("POST", path, body(matrix, b"null"), JSON).assert_error(400, 400)
    assert "`texture`" in error
    assert "row 0" in error


MALFORMED = [
    b"",
    b" ",
    b"{",
    b'{"inputs"',
    b'{"inputs": [}',
    b'{"inputs": []} x',
    b'{"inputs": [],}',
    b"\x00",
    b"\xff\xfe{",
    b'{"inputs": "\xff"}',
    b"\xef\xbb\xbf{}",
    b'"inputs"',
    b"5",
]


@pytest.mark.parametrize("path", ["infer", ":predict"])
@pytest.mark.parametrize("malformed", MALFORMED, ids=repr)
def test_malformed_json_is_refused(subject: Subject, path: str, malformed: bytes) -> None:
    model = subject.target.model
    where = f"/v2/models/{model}/infer" if path == "infer" else f"/v1/models/{model}:predict"
    subject.target.http("POST", where, malformed, JSON).assert_error(400, 400)


@pytest.mark.parametrize("depth", [100, 100_000, 2_000_000])
@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":['])
def test_deep_json_is_refused(subject: Subject, opening: bytes, depth: int) -> None:
    repeated = opening * depth if len(opening) < 8 else opening + b"[" * depth
    for path in (f"{subject.target.path}/infer", f"/v1/models/{subject.target.model}:predict"):
        subject.target.http("POST", path, repeated[: 8 * 2**20], JSON).assert_error(400, 413)  # 413: too many arrays
    subject.assert_serves()


@pytest.mark.parametrize("text", ["\x00", "a\x00b", "\ud800", "\udfff\ud800", "\u202e", "x" * 2**19], ids=ascii)
def test_odd_text_is_answered_or_refused(subject: Subject, matrix: Payload, text: str) -> None:
    content = matrix.rows(1).json()
    words = {**content["inputs"][0], "datatype": "BYTES", "data": [text] * len(content["inputs"][0]["data"])}
    requests = [
        {**content, "id": text},
        {**content, "parameters": {text: text}},
        {**content, "outputs": [{"name": text}]},
        first(content, name=text),
        first(content, datatype=text),
        {"inputs": [words]},
    ]
    answers = [subject.target.infer(request) for request in requests]
    assert {answer.status for answer in answers[2:]} <= {400, 413}  # 413: half a mebibyte ten times over
    assert {answer.status for answer in answers[:2]} <= {200, 400}
    assert all(len(answer.body) < 2000 for answer in answers[1:])
    subject.assert_serves()


def test_no_rows_give_empty_outputs_over_rest_and_grpc(subject: Subject) -> None:
    target, none = subject.target, subject.payload.rows(0)
    by_rest = target.infer(none.json()).outputs()
    by_grpc = grpc_outputs(target.call("ModelInfer", none.message(target.model)))
    declared = {output["name"]: [0, *output["shape"][1:]] for output in target.metadata["outputs"]}
    assert {name: list(tensor.array.shape) for name, tensor in by_rest.items()} == declared
    assert {name: list(tensor.array.shape) for name, tensor in by_grpc.items()} == declared


def test_no_instances_have_no_predictions(subject: Subject) -> None:
    answer = subject.target.post(f"/v1/models/{subject.target.model}:predict", {"instances": []})
    assert (answer.status, answer.json()) == (200, {"predictions": []})


@pytest.mark.parametrize("instances", [[[]], [{}], [[], []], [{}, {}], [[], {}]], ids=str)
def test_instances_of_nothing_are_refused(subject: Subject, instances: list[Any]) -> None:
    path = f"/v1/models/{subject.target.model}:predict"
    subject.target.post(path, {"instances": instances}).assert_error(400, 400)


def test_missing_numbers_come_back_as_null_never_as_nan(echoing: Subject) -> None:
    tensor = Tensor("fp64", "FP64", np.array([[np.nan, np.inf]]))
    payload = echoing.payload.rows(1)
    index = [one.name for one in payload.tensors].index("fp64")
    body, headers = payload.swapped(index, tensor).binary()
    answer = echoing.target.infer_binary(body, headers)
    output = next(one for one in answer.json()["outputs"] if one["name"] == "fp64")
    assert output["data"] == [None, None]
    by_grpc = echoing.target.call("ModelInfer", payload.swapped(index, tensor).message("echo", typed=False))
    assert grpc_outputs(by_grpc)["fp64"].raw() == tensor.raw()


def test_bytes_that_are_no_message_are_invalid(subject: Subject) -> None:
    for junk in (b"\xff" * 20, b"\x0a\x05ab", b"\x0a\x02\xff\xfe"):
        assert raw_status(subject, junk) == grpc.StatusCode.INVALID_ARGUMENT
    subject.assert_serves()


def raw_status(subject: Subject, message: bytes) -> grpc.StatusCode:
    """The status of ModelInfer with these bytes as its message."""
    with grpc.insecure_channel(subject.service.grpc) as channel, pytest.raises(grpc.RpcError) as failure:
        channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(message, timeout=60)
    status: grpc.StatusCode = failure.value.code()
    return status


def test_unknown_models_and_methods_have_their_status(subject: Subject, matrix: Payload) -> None:
    target = subject.target
    assert target.refusal("ModelInfer", matrix.message("no-such-model")) == grpc.StatusCode.NOT_FOUND
    assert target.refusal("ModelInfer", matrix.message(target.model, model_version="99")) == grpc.StatusCode.NOT_FOUND
    assert target.refusal("ModelReady", pb.ModelReadyRequest(name="")) == grpc.StatusCode.NOT_FOUND
    with grpc.insecure_channel(subject.service.grpc) as channel, pytest.raises(grpc.RpcError) as failure:
        channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelLoad")(b"", timeout=60)
    assert failure.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "a new bundle is deployed as a new release" in failure.value.details()


def test_the_name_of_an_input_is_shortened_in_an_error(subject: Subject) -> None:
    """Over gRPC, an error too long for the metadata would reach the client as RESOURCE_EXHAUSTED."""
    long = only(subject.payload, name="x" * 20_000, datatype="FP99")
    answer = subject.target.infer(long.json())
    assert (answer.status, len(answer.body) < 500) == (400, True)
    assert subject.target.refusal("ModelInfer", long.message(subject.target.model)) == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/cloudevents+json"},
        {"Content-Type": "application/json", "ce-specversion": "1.0", "ce-type": "a", "ce-source": "b", "ce-id": "1"},
    ],
    ids=["structured", "binary"],
)
def test_a_cloud_event_is_told_what_to_send(subject: Subject, headers: dict[str, str]) -> None:
    answer = subject.target.infer_binary(json.dumps(subject.payload.json()).encode(), headers)
    assert answer.status == 415
    assert "CloudEvents are not supported: send only their data, as application/json" in answer.json()["error"]
