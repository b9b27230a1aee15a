"""The error table, over both protocols."""

from __future__ import annotations

import json
from collections.abc import Generator
from http.client import HTTPConnection
from pathlib import Path

import grpc
import pytest

from tabserve.inference import errors
from tabserve.inference.errors import InferenceError
from tabserve.inference.grpc import open_inference_pb2 as pb
from tests.serving import Service, running


def tree(root: type[InferenceError] = InferenceError) -> list[type[InferenceError]]:
    """The errors of the table; a class elsewhere only adds details to one of them."""
    children = (child for child in root.__subclasses__() if child.__module__ == errors.__name__)
    return [root, *(leaf for child in children for leaf in tree(child))]


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    with running("tests.unit.failing", log=tmp_path_factory.mktemp("failing") / "log") as service:
        yield service


def post(service: Service, name: str) -> tuple[int, dict[str, str], str | None]:
    connection = HTTPConnection("127.0.0.1", service.http_port, timeout=30)
    body = {"inputs": [{"name": "error", "datatype": "BYTES", "shape": [1], "data": [name]}]}
    connection.request("POST", "/v2/models/failing/infer", json.dumps(body))
    answer = connection.getresponse()
    content = json.loads(answer.read())
    connection.close()
    return answer.status, content, answer.getheader("retry-after")


def call(service: Service, name: str) -> grpc.RpcError:
    request = pb.ModelInferRequest(model_name="failing")
    request.inputs.add(name="error", datatype="BYTES", shape=[1]).contents.bytes_contents.append(name.encode())
    with grpc.insecure_channel(service.grpc) as channel:
        method = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        with pytest.raises(grpc.RpcError) as raised:
            method(request, timeout=30)
        return raised.value


@pytest.mark.parametrize("error", tree(), ids=lambda error: error.__name__)
def test_status_and_message_over_rest(failing: Service, error: type[InferenceError]) -> None:
    status, content, retry_after = post(failing, error.__name__)

    assert (status, content) == (error.http_status, {"error": f"told as {error.__name__}"})
    assert retry_after == (None if error.retry_after is None else str(error.retry_after))


@pytest.mark.parametrize("error", tree(), ids=lambda error: error.__name__)
def test_status_and_message_over_grpc(failing: Service, error: type[InferenceError]) -> None:
    raised = call(failing, error.__name__)

    assert (raised.code().name, raised.details()) == (error.grpc_status, f"told as {error.__name__}")
    trailing = dict(raised.trailing_metadata() or ())
    assert trailing.get("retry-after") == (None if error.retry_after is None else str(error.retry_after))


def test_every_error_stands_in_the_table_of_the_docstring() -> None:
    for error in tree():
        assert error.__name__ in (InferenceError.__doc__ or "")


def test_an_unexpected_failure_tells_the_client_and_the_log_nothing_of_the_request(failing: Service) -> None:
    status, content, _ = post(failing, "secret-4711")

    assert (status, content) == (500, {"error": "prediction failed"})
    assert call(failing, "secret-4711").details() == "prediction failed"
    log = Path(failing.log).read_text()
    assert "LookupError" in log
    assert "secret-4711" not in log


def test_a_long_text_is_shortened_in_quotes() -> None:
    assert errors.quoted("XX") == '"XX"'
    assert errors.quoted("x" * 1000) == '"' + "x" * 40 + '…"'
