"""Statements 46 to 53: the binary tensor data extension."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.payload import Json, Payload, equal, framed
from tests.contract.target import Answer, Target

WANT_BINARY = {"parameters": {"binary_data_output": True}}


def binary_names(answer: Answer) -> set[str]:
    """The outputs that a response has in binary form."""
    assert answer.status == 200, answer.body
    size = answer.headers["Inference-Header-Content-Length"]
    content: Json = json.loads(answer.body[: int(size)] if size else answer.body)
    return {output["name"] for output in content["outputs"] if "data" not in output}


def head(payload: Payload, **more: Any) -> Json:
    """The JSON part of a request whose tensors are all binary."""
    body, headers = payload.binary(**more)
    content: Json = json.loads(body[: int(headers["Inference-Header-Content-Length"])])
    return content


@pytest.mark.statement(46)
def test_46_without_the_header_the_body_is_all_json(binary: Target, payload: Payload) -> None:
    """46. Without `Inference-Header-Content-Length` the whole body is JSON: binary tensors after it are an error."""
    body, _ = payload.binary()
    binary.infer_binary(body, {"Content-Type": "application/json"}).assert_refused()
    assert binary.infer_binary(json.dumps(payload.json()).encode(), {"Content-Type": "application/json"}).status == 200


@pytest.mark.statement(47)
@pytest.mark.parametrize("change", [b"\x00", None], ids=["longer", "shorter"])
def test_47_a_wrong_total_length_is_an_error(binary: Target, payload: Payload, change: bytes | None) -> None:
    """47. The binary tensors together have the length that their `binary_data_size` gives; otherwise it is a 4xx."""
    body, headers = payload.binary()
    binary.infer_binary(body + change if change else body[:-1], headers).assert_refused()


@pytest.mark.statement(47)
@pytest.mark.parametrize("size", [-1, 3, 2**40, "8", True], ids=str)
def test_47_a_wrong_tensor_size_is_an_error(binary: Target, payload: Payload, size: Any) -> None:
    """47. `binary_data_size` is the size of the tensor in bytes; any other is a 4xx."""
    content = head(payload)
    content["inputs"][0]["parameters"]["binary_data_size"] = size
    binary.infer_binary(*framed(content, *(tensor.raw() for tensor in payload.tensors))).assert_refused()


@pytest.mark.statement(47)
def test_47_a_binary_tensor_has_no_data(binary: Target, payload: Payload) -> None:
    """47. An input with `binary_data_size` has no `data`."""
    content = head(payload)
    content["inputs"][0]["data"] = payload.json()["inputs"][0]["data"]
    binary.infer_binary(*framed(content, *(tensor.raw() for tensor in payload.tensors))).assert_refused()


@pytest.mark.statement(48)
def test_48_tensors_follow_the_json_in_its_order(binary: Target, payload: Payload) -> None:
    """48. Binary tensors follow the JSON in its order, little-endian, row-major and unpadded."""
    by_json = binary.infer(payload.json()).outputs()
    turned = Payload(payload.tensors[::-1])
    assert equal(binary.infer_binary(*payload.binary()).outputs(), by_json)
    assert equal(binary.infer_binary(*turned.binary()).outputs(), by_json)


@pytest.mark.statement(49)
def test_49_each_datatype_has_its_bytes(binary: Target, payload: Payload) -> None:
    """49. BOOL is a byte, BYTES a 4-byte length and content, FP16 2 bytes: each input means what it means in JSON."""
    by_json = binary.infer(payload.json()).outputs()
    for index, tensor in enumerate(payload.tensors):
        content = payload.json()
        content["inputs"][index] = {**tensor.head(), "parameters": {"binary_data_size": len(tensor.raw())}}
        assert equal(binary.infer_binary(*framed(content, tensor.raw())).outputs(), by_json), tensor.name


@pytest.mark.statement(50)
def test_50_binary_data_output_makes_all_outputs_binary(binary: Target, payload: Payload) -> None:
    """50. `binary_data_output: true` on the request makes all outputs binary."""
    names = {output["name"] for output in binary.metadata["outputs"]}
    assert binary_names(binary.infer(payload.json(**WANT_BINARY))) == names


@pytest.mark.statement(50)
def test_50_requested_outputs_follow_the_request(binary: Target, payload: Payload) -> None:
    """50. `binary_data_output: true` holds for requested outputs that say nothing themselves."""
    name = binary.metadata["outputs"][0]["name"]
    answer = binary.infer(payload.json(**WANT_BINARY, outputs=[{"name": name}]))
    assert binary_names(answer) == {name}


@pytest.mark.statement(50)
@pytest.mark.parametrize("request_level", [True, False])
@pytest.mark.parametrize("output_level", [True, False])
def test_50_an_output_overrides_the_request(
    binary: Target, payload: Payload, request_level: bool, output_level: bool
) -> None:
    """50. `binary_data` of an output overrides `binary_data_output` of the request."""
    name = binary.metadata["outputs"][0]["name"]
    outputs = [{"name": name, "parameters": {"binary_data": output_level}}]
    answer = binary.infer(payload.json(parameters={"binary_data_output": request_level}, outputs=outputs))
    assert binary_names(answer) == ({name} if output_level else set())


@pytest.mark.statement(51)
def test_51_a_binary_response_says_so(binary: Target, payload: Payload) -> None:
    """51. A response with a binary output carries the header, its sizes, its content type and its length."""
    answer = binary.infer(payload.json(**WANT_BINARY))
    size = int(answer.headers["Inference-Header-Content-Length"])
    sizes = [output["parameters"]["binary_data_size"] for output in json.loads(answer.body[:size])["outputs"]]
    assert size + sum(sizes) == len(answer.body) == int(answer.headers["Content-Length"])
    assert answer.headers.get_content_type() == "application/octet-stream"


@pytest.mark.statement(52)
def test_52_json_and_binary_tensors_mix(binary: Target, payload: Payload) -> None:
    """52. JSON and binary tensors may be mixed in one request and in one response."""
    names = [output["name"] for output in binary.metadata["outputs"]]
    last = payload.tensors[-1]
    content = payload.json(
        outputs=[{"name": name, "parameters": {"binary_data": name == names[0]}} for name in names],
    )
    content["inputs"][-1] = {**last.head(), "parameters": {"binary_data_size": len(last.raw())}}
    answer = binary.infer_binary(*framed(content, last.raw()))
    assert binary_names(answer) == {names[0]}
    assert equal(answer.outputs(), binary.infer(payload.json()).outputs())


@pytest.mark.statement(53)
def test_53_the_extension_has_its_name(binary: Target) -> None:
    """53. A server that reads binary tensors lists the extension as `binary_tensor_data`."""
    assert "binary_tensor_data" in binary.server["extensions"]
