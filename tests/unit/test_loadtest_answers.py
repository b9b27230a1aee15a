from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tabserve.inference.grpc import open_inference_pb2 as pb
from tabserve.inference.grpc.codec import decode_request
from tabserve.inference.rest import codec
from tabserve.inference.tensors import Tensor
from tabserve_loadtest.answers import Answer, Checker, difference
from tabserve_loadtest.payloads import Payload, encode
from tabserve_loadtest.target import Kind, Target

TENSORS = [
    Tensor("x", "FP64", np.array([[1.5, np.nan], [3.0, 4.0]])),
    Tensor("c", "BYTES", np.array([b"DE", b""], object)),
]


def request(kind: Kind, outputs: list[str]) -> Any:
    """An encoded request, read again by the server's own codec."""
    data = encode(Target("http://host:1", "m", kind), TENSORS, outputs)
    if kind == "grpc":
        return decode_request(pb.ModelInferRequest.FromString(data))
    head, _, body = data.partition(b"\r\n\r\n")
    headers = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert int(headers[b"Content-Length"]) == len(body)
    return codec.decode_request(body, headers.get(b"Inference-Header-Content-Length"))


@pytest.mark.parametrize("kind", ["json", "binary", "grpc"])
def test_requests_say_what_was_meant(kind: Kind) -> None:
    found = request(kind, ["y"])

    assert [tensor.name for tensor in found.inputs] == ["x", "c"]
    np.testing.assert_array_equal(found.inputs[0].array, TENSORS[0].array)
    assert found.inputs[1].array.tolist() == [b"DE", b""]
    assert [output.name for output in found.outputs] == ["y"]


def answer(kind: Kind, values: list[float]) -> Answer:
    """A server's answer with the output `y`."""
    array = np.array(values)
    if kind == "records":
        return Answer(200, {}, json.dumps({"predictions": [{"score": value, "more": 1} for value in values]}).encode())
    if kind == "json":
        output = {"name": "y", "datatype": "FP64", "shape": [1, len(values)], "data": [values]}
        return Answer(200, {}, json.dumps({"outputs": [output]}).encode())
    spec: dict[str, Any] = {"name": "y", "datatype": "FP64", "shape": [len(values)]}
    if kind == "grpc":
        output_message = pb.ModelInferResponse.InferOutputTensor(**spec)
        message = pb.ModelInferResponse(outputs=[output_message], raw_output_contents=[array.tobytes()])
        return Answer(200, {}, message.SerializeToString())
    head = json.dumps({"outputs": [{**spec, "parameters": {"binary_data_size": array.nbytes}}]}).encode()
    return Answer(200, {"inference-header-content-length": str(len(head))}, head + array.tobytes())


KINDS: list[Kind] = ["json", "binary", "grpc", "records"]


@pytest.mark.parametrize("kind", KINDS)
def test_right_answers_are_right_and_wrong_ones_wrong_again_and_again(kind: Kind) -> None:
    expected = {"predictions": [{"score": 1.0}, {"score": 2.0}]} if kind == "records" else {"y": [1.0, 2.0]}
    payload, checker = Payload(b"", 2, expected), Checker(kind)

    for _ in range(2):
        assert checker.problem(0, payload, answer(kind, [1.0, 2.0 + 1e-6])) is None
        assert "not the expected value" in str(checker.problem(0, payload, answer(kind, [1.0, 2.1])))
        assert "expected 2 elements" in str(checker.problem(0, payload, answer(kind, [1.0])))
        assert "unreadable" in str(checker.problem(0, payload, Answer(200, {}, b'{"outputs": 7, "predictions')))


def test_differences_are_told_without_the_values() -> None:
    wanted = {"y": [1.0, None, float("nan")], "s": ["a"]}

    assert difference(wanted, {"y": [1.0, None, None], "s": ["a"], "more": 0}, 1e-5) is None
    assert difference(wanted, {"s": ["a"]}, 1e-5) == "answer: `y` is missing"
    assert difference(wanted, {"y": [1.0, None, None], "s": ["secret"]}, 1e-5) == "answer.s: not the expected value"


def test_an_answer_names_its_release_and_a_mixed_one_both() -> None:
    transformer, predictor = "tabserve-transformer-release", "tabserve-predictor-release"

    assert Answer(200, {transformer: "a", predictor: "a"}, b"").release == "a"
    assert Answer(200, {transformer: "a", predictor: "b"}, b"").release == "a + b"
    assert Answer(200, {}, b"").release == ""
    assert [Answer(status, {}, b"").refused for status in (200, 429, 500, 503, 504)] == [
        False,
        True,
        False,
        True,
        False,
    ]
