"""Statements 18 to 32: inference requests and responses over REST, apart from their elements."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.payload import Json, Payload, close, rows_of
from tests.contract.target import Target


def first_output(server: Target) -> str:
    """The name of the first output that the metadata lists."""
    return str(server.metadata["outputs"][0]["name"])


@pytest.mark.statement(18)
def test_18_inference_answers_200_and_outputs(server: Target, payload: Payload) -> None:
    """18. `POST v2/models/{m}/infer` answers 200, and its body is an inference response."""
    answer = server.infer(payload.json())
    assert answer.status == 200, answer.body
    assert answer.json()["outputs"]


@pytest.mark.statement(19)
def test_19_every_listed_version_infers(server: Target, payload: Payload) -> None:
    """19. `POST …/versions/{v}/infer` works for every version that the metadata lists."""
    statuses = {
        version: server.post(f"{server.path}/versions/{version}/infer", payload.json()).status
        for version in server.metadata.get("versions") or []
    }
    assert set(statuses.values()) <= {200}, statuses


@pytest.mark.statement(19)
def test_19_an_unknown_version_is_an_error(server: Target, payload: Payload) -> None:
    """19. A version that isn't there is an error."""
    server.post(f"{server.path}/versions/no-such-version/infer", payload.json()).assert_error()


@pytest.mark.statement(20)
@pytest.mark.parametrize("content", [{}, {"inputs": None}, {"inputs": {}}, {"id": "1"}], ids=str)
def test_20_inputs_are_required(server: Target, content: Json) -> None:
    """20. A request without `inputs` is an error with `{"error"}`."""
    server.infer(content).assert_refused()


@pytest.mark.statement(21)
@pytest.mark.parametrize("field", ["name", "shape", "datatype", "data"])
def test_21_inputs_need_their_fields(server: Target, payload: Payload, field: str) -> None:
    """21. Each input has `name`, `shape`, `datatype` and, without the binary extension, `data`."""
    content = payload.json()
    del content["inputs"][0][field]
    server.infer(content).assert_refused()


@pytest.mark.statement(22)
@pytest.mark.parametrize("request_id", ["42", "a/b ü 漢", "x" * 200])
def test_22_the_id_is_echoed(server: Target, payload: Payload, request_id: str) -> None:
    """22. `id` is optional; if it is given, the response has it unchanged."""
    answer = server.infer(payload.json(id=request_id))
    assert answer.status == 200
    assert answer.json()["id"] == request_id


@pytest.mark.statement(23)
def test_23_without_an_id_the_response_needs_none(server: Target, payload: Payload) -> None:
    """23. Without `id` the response has one or none, but succeeds."""
    answer = server.infer(payload.json())
    assert answer.status == 200
    assert isinstance(answer.json().get("id", ""), str)


@pytest.mark.statement(24)
def test_24_the_response_names_the_model(server: Target, payload: Payload) -> None:
    """24. A response has `model_name`, which is the model used, and `outputs`."""
    content = server.infer(payload.json()).json()
    assert content["model_name"] == server.model
    assert isinstance(content["outputs"], list)


@pytest.mark.statement(25)
def test_25_the_response_names_a_version_only_if_there_are_versions(server: Target, payload: Payload) -> None:
    """25. `model_version` is one of those the metadata lists, and is omitted where versioning is not implemented."""
    content = server.infer(payload.json()).json()
    found = [content["model_version"]] if "model_version" in content else []
    assert set(found) <= set(server.metadata.get("versions") or [])


@pytest.mark.statement(26)
def test_26_without_outputs_all_are_returned(server: Target, payload: Payload) -> None:
    """26. Without `outputs` in the request all outputs are returned."""
    names = {output["name"] for output in server.metadata["outputs"]}
    assert server.infer(payload.json()).outputs().keys() == names


@pytest.mark.statement(27)
def test_27_only_requested_outputs_are_returned(server: Target, payload: Payload) -> None:
    """27. With `outputs` only these are returned."""
    name = first_output(server)
    answer = server.infer(payload.json(outputs=[{"name": name}]))
    assert list(answer.outputs()) == [name]


@pytest.mark.statement(28)
def test_28_an_unknown_output_is_an_error(server: Target, payload: Payload) -> None:
    """28. A requested output that the model doesn't have is an error."""
    server.infer(payload.json(outputs=[{"name": "no-such-output"}])).assert_refused()


@pytest.mark.statement(29)
def test_29_outputs_are_told_by_their_names(server: Target, payload: Payload) -> None:
    """29. The order of outputs is not specified; their names identify them, so each is there once."""
    names = [output["name"] for output in server.infer(payload.json()).json()["outputs"]]
    assert len(set(names)) == len(names)


@pytest.mark.statement(30)
@pytest.mark.parametrize("size", [-1, 1.5, "2", None, 2**64], ids=str)
def test_30_dimensions_are_unsigned_integers(server: Target, payload: Payload, size: Any) -> None:
    """30. A dimension of the shape is an unsigned 64-bit integer; negative, fractional and text are errors."""
    content = payload.json()
    content["inputs"][0]["shape"][0] = size
    server.infer(content).assert_refused()


@pytest.mark.statement(31)
@pytest.mark.parametrize("change", [1, -1], ids=["more", "less"])
def test_31_shape_and_number_of_elements_agree(server: Target, payload: Payload, change: int) -> None:
    """31. The product of the dimensions equals the number of elements; a mismatch is a 4xx."""
    content = payload.json()
    content["inputs"][0]["shape"][0] += change
    server.infer(content).assert_refused()


@pytest.mark.statement(32)
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_32_inputs_and_outputs_cover_the_batch(server: Target, payload: Payload, rows: int) -> None:
    """32. Shape and data cover the whole batch, in outputs as in inputs, and each row has its own answer."""
    whole = rows_of(server.infer(payload.rows(7).json()).outputs(), rows)
    part = server.infer(payload.rows(rows).json()).outputs()
    assert {name: tensor.array.shape[0] for name, tensor in part.items()} == dict.fromkeys(whole, rows)
    assert all(close(part[name], whole[name]) for name in whole)
