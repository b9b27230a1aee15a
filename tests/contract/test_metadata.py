"""Statements 10 to 17: what the server and the model say about themselves over REST."""

from __future__ import annotations

import pytest

from tests.contract.payload import DTYPES, Json, Payload
from tests.contract.target import Target


def fits(shape: list[int], declared: list[int]) -> bool:
    """Whether a shape is one of those that metadata declares, where -1 is any size."""
    return len(shape) == len(declared) and all(d in (-1, size) for size, d in zip(shape, declared, strict=True))


@pytest.mark.statement(10)
def test_10_server_metadata_has_name_version_extensions(server: Target) -> None:
    """10. `GET v2` answers 200 with `name`, `version` and `extensions`."""
    answer = server.http("GET", "/v2")
    assert answer.status == 200
    content = answer.json()
    assert isinstance(content["name"], str)
    assert isinstance(content["version"], str)
    assert all(isinstance(extension, str) for extension in content["extensions"])


@pytest.mark.statement(11)
def test_11_extensions_list_what_works(server: Target, payload: Payload) -> None:
    """11. Every extension that is implemented is listed: binary tensors work if and only if they are."""
    works = server.infer_binary(*payload.binary()).status == 200
    assert works == ("binary_tensor_data" in server.server["extensions"])


@pytest.mark.statement(12)
def test_12_a_failed_metadata_request_is_an_error_object(server: Target) -> None:
    """12. A server-metadata request that fails gives an HTTP error and `{"error": string}`."""
    server.http("DELETE", "/v2").assert_refused()


@pytest.mark.statement(13)
def test_13_model_metadata_has_the_required_fields(server: Target) -> None:
    """13. `GET v2/models/{m}` answers 200 with `name`, `platform`, `inputs` and `outputs`; `versions` is optional."""
    answer = server.http("GET", server.path)
    assert answer.status == 200
    content = answer.json()
    assert content["name"] == server.model
    assert isinstance(content["platform"], str)
    assert isinstance(content["inputs"], list)
    assert isinstance(content["outputs"], list)
    versions = content.get("versions", [])
    assert isinstance(versions, list)
    assert all(isinstance(version, str) for version in versions)


@pytest.mark.statement(13)
def test_13_a_listed_version_has_metadata(server: Target) -> None:
    """13. `GET v2/models/{m}/versions/{v}` answers for every version listed."""
    names = [
        server.http("GET", f"{server.path}/versions/{version}").json()["name"]
        for version in server.metadata.get("versions") or []
    ]
    assert set(names) <= {server.model}


@pytest.mark.statement(14)
@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_14_metadata_tensors_have_name_datatype_shape(server: Target, side: str) -> None:
    """14. Each tensor of the metadata has name, datatype and shape; a variable dimension is -1."""
    tensors: list[Json] = server.metadata[side]
    assert tensors, f"the metadata lists no {side}"
    assert all(isinstance(tensor["name"], str) for tensor in tensors)
    assert {tensor["datatype"] for tensor in tensors} <= {*DTYPES, "BF16"}
    assert all(isinstance(size, int) and size >= -1 for tensor in tensors for size in tensor["shape"])


@pytest.mark.statement(15)
def test_15_platform_is_text(server: Target) -> None:
    """15. `platform` is text; its closed list has no entry for most formats and is contested."""
    assert isinstance(server.metadata["platform"], str)


@pytest.mark.statement(16)
@pytest.mark.parametrize("suffix", ["", "/versions/1"])
def test_16_metadata_of_an_unknown_model_is_an_error(server: Target, suffix: str) -> None:
    """16. Metadata of an unknown model is an error status and `{"error"}`."""
    server.http("GET", f"/v2/models/no-such-model{suffix}").assert_error()


@pytest.mark.statement(17)
def test_17_listed_inputs_are_accepted_and_listed_outputs_returned(server: Target, payload: Payload) -> None:
    """17. Metadata and inference agree: the inputs listed are accepted, the outputs listed are returned."""
    outputs = server.infer(payload.json()).outputs()
    declared = {output["name"]: output for output in server.metadata["outputs"]}
    assert outputs.keys() == declared.keys()
    assert {name: tensor.datatype for name, tensor in outputs.items()} == {
        name: output["datatype"] for name, output in declared.items()
    }
    misfits = [n for n, tensor in outputs.items() if not fits(list(tensor.array.shape), declared[n]["shape"])]
    assert not misfits
