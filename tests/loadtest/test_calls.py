"""What gRPC answers mean to the load tests, from a server of the project."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

import pytest

from tabserve.inference.grpc import open_inference_pb2 as pb
from tabserve_loadtest.calls import GrpcConnection
from tabserve_loadtest.target import Target
from tests.serving import Service


@pytest.fixture
def connection(echo: Service) -> Generator[GrpcConnection]:
    """A connection to the model that answers its inputs."""
    with closing(GrpcConnection(Target(echo.url, "echo", "grpc", echo.grpc))) as opened:
        yield opened


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (pb.ModelInferRequest(model_name="echo", raw_input_contents=[bytes(9 * 2**20)]).SerializeToString(), 413),
        (pb.ModelInferRequest(model_name="other").SerializeToString(), 404),
        (pb.ModelInferRequest(model_name="echo").SerializeToString(), 400),
    ],
    ids=["too large", "another model", "no inputs"],
)
def test_what_the_client_did_wrong_is_a_4xx_and_no_refusal(
    connection: GrpcConnection, request_bytes: bytes, status: int
) -> None:
    answer = connection.ask(request_bytes)

    assert (answer.status, answer.refused) == (status, False)


def test_nobody_there_is_a_lost_connection() -> None:
    with (
        closing(GrpcConnection(Target("http://127.0.0.1:9", "echo", "grpc", "127.0.0.1:9"))) as opened,
        pytest.raises(ConnectionError),
    ):
        opened.ask(b"")
