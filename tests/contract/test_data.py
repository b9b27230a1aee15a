"""Statements 33 to 45: the elements of tensors in JSON, parameters, errors and content types."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.contract.payload import DTYPES, Array, Json, Payload, Tensor, close, equal, rows_of
from tests.contract.target import Answer, Target

WRONG: dict[str, Any] = {"f": "not a number", "i": "not a number", "u": "not a number", "b": "not a truth", "O": 1}
INTEGERS = [datatype for datatype in DTYPES if "INT" in datatype]


@pytest.mark.statement(33)
def test_33_nested_and_flat_data_mean_the_same(server: Target, payload: Payload) -> None:
    """33. Data is accepted nested or flat, and both give the same result."""
    nested = {"inputs": [tensor.json(nested=True) for tensor in payload.tensors]}
    assert equal(server.infer(nested).outputs(), server.infer(payload.json()).outputs())


@pytest.mark.statement(34)
def test_34_data_is_row_major(server: Target, payload: Payload) -> None:
    """34. Flat data is row-major: each row sent by itself has the answer it has in the batch."""
    batch = rows_of(server.infer(payload.rows(3).json()).outputs(), start=2, stop=3)
    alone = server.infer(payload.rows(start=2, stop=3).json()).outputs()
    assert all(close(alone[name], batch[name]) for name in batch)


@pytest.mark.statement(35)
def test_35_wrong_elements_are_coerced_or_refused(server: Target, payload: Payload) -> None:
    """35. An element of the wrong type is coerced or an error, for every input, but never a 5xx."""
    for index, tensor in enumerate(payload.tensors):
        content = payload.json()
        content["inputs"][index]["data"][0] = WRONG[tensor.array.dtype.kind]
        answer = server.infer(content)
        assert answer.status < 500, f"{tensor.name}: {answer.body!r}"


@pytest.mark.statement(36)
@pytest.mark.parametrize("datatype", DTYPES)
def test_36_every_datatype_is_known(server: Target, payload: Payload, datatype: str) -> None:
    """36. All datatypes are accepted where the model takes them, and are a 4xx where it doesn't; never a 5xx."""
    first = payload.tensors[0]
    array = np.zeros(first.array.shape, DTYPES[datatype])
    tensor = Tensor(first.name, datatype, array if datatype != "BYTES" else np.full(array.shape, b"0", object))
    answer = server.infer(payload.swapped(0, tensor).json())
    assert answer.status == 200 or answer.assert_refused()


@pytest.mark.statement(37)
@pytest.mark.parametrize("datatype", ["FLOAT", "STRING", "", "INT128", 5, None], ids=str)
def test_37_an_unknown_datatype_is_an_error(server: Target, payload: Payload, datatype: Any) -> None:
    """37. A datatype that the protocol doesn't have is an error."""
    content = payload.json()
    content["inputs"][0]["datatype"] = datatype
    server.infer(content).assert_refused()


@pytest.mark.statement(38)
@pytest.mark.parametrize("bound", ["min", "max"])
def test_38_integer_extremes_survive_json(binary: Target, payload: Payload, bound: str) -> None:
    """38. The extremes of every integer input survive JSON: the answer is that of their binary form."""
    tensors = tuple(
        replace(tensor, array=extreme(tensor.array, bound)) if tensor.datatype in INTEGERS else tensor
        for tensor in payload.tensors
    )
    by_json = binary.infer(Payload(tensors).json())
    by_bytes = binary.infer_binary(*Payload(tensors).binary())
    assert by_json.status == by_bytes.status < 500
    assert by_json.status != 200 or equal(by_json.outputs(), by_bytes.outputs())


def extreme(array: Array, bound: str) -> Array:
    """The array filled with its type's smallest or largest number."""
    return np.full_like(array, getattr(np.iinfo(array.dtype), bound))


@pytest.mark.statement(39)
def test_39_bool_is_json_boolean_and_bytes_is_json_text(server: Target, payload: Payload) -> None:
    """39. BOOL elements are JSON booleans and BYTES elements JSON strings, in responses as in requests."""
    outputs = server.infer(payload.json()).json()["outputs"]
    kinds = {"BOOL": bool, "BYTES": str}
    wrong = [
        output["name"]
        for output in outputs
        if not all(isinstance(e, kinds.get(output["datatype"], object)) for e in flat(output["data"]))
    ]
    assert not wrong


def flat(data: list[Any]) -> list[Any]:
    """The elements of nested or flat data."""
    return list(np.array(data, object).ravel())


@pytest.mark.statement(40)
@pytest.mark.parametrize("value", ["text", 7, 1.5, True], ids=str)
def test_40_unknown_parameters_do_not_break_a_request(server: Target, payload: Payload, value: Any) -> None:
    """40. Parameters are strings, numbers or booleans of request, inputs and outputs; unknown ones change nothing."""
    parameters = {"parameters": {"x_no_such_parameter": value}}
    name = server.metadata["outputs"][0]["name"]
    content = payload.json(**parameters, outputs=[{"name": name, **parameters}])
    content["inputs"] = [{**tensor, **parameters} for tensor in content["inputs"]]
    plain = server.infer(payload.json(outputs=[{"name": name}]))
    assert equal(server.infer(content).outputs(), plain.outputs())


@pytest.mark.statement(41)
def test_41_a_failed_inference_is_an_error_object(server: Target, payload: Payload) -> None:
    """41. A failed inference has an HTTP error status and `{"error"}`, whatever made it fail."""
    renamed: Json = payload.json()
    renamed["inputs"][0]["name"] = "no-such-input"
    server.infer(renamed).assert_refused()
    server.http("GET", f"{server.path}/infer").assert_refused()
    server.post(f"{server.path}/no-such-verb", payload.json()).assert_refused()


@pytest.mark.statement(42)
@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"inputs": [}', b"null", b"[]"], ids=repr)
def test_42_malformed_json_is_an_error(server: Target, body: bytes) -> None:
    """42. Malformed JSON is an error with `{"error"}`."""
    path = f"{server.path}/infer"
    server.http("POST", path, body, {"Content-Type": "application/json"}).assert_refused()


@pytest.mark.statement(43)
def test_43_inference_of_an_unknown_model_is_an_error(server: Target, payload: Payload) -> None:
    """43. Inference on a model that isn't there is an error with `{"error"}`."""
    server.post("/v2/models/no-such-model/infer", payload.json()).assert_refused()


@pytest.mark.statement(44)
def test_44_json_responses_say_that_they_are_json(server: Target, payload: Payload) -> None:
    """44. The content type of a response without binary tensors is application/json."""
    answers: list[Answer] = [server.infer(payload.json()), server.http("GET", "/v2"), server.infer({})]
    assert {answer.headers.get_content_type() for answer in answers} == {"application/json"}


@pytest.mark.statement(45)
def test_45_json_numbers_read_back_to_the_same_bits(binary: Target, payload: Payload) -> None:
    """45. An output's JSON numbers, read back in its datatype, are the bits that its binary form has."""
    body, headers = payload.binary(parameters={"binary_data_output": True})
    assert equal(binary.infer(payload.json()).outputs(), binary.infer_binary(body, headers).outputs())
