"""The servers under test: the one given with --url, or the project's own services, started here."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.payload import TYPED, Payload
from tests.contract.target import Target
from tests.serving import Service

OWN = ("echo", "typed_echo", "predictor", "transformer")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every statement against each server."""
    if "server" in metafunc.fixturenames:
        url = metafunc.config.getoption("--url")
        own = [name for name in OWN if name != "echo" or "typed" not in metafunc.fixturenames]
        metafunc.parametrize("server", ["url"] if url else own, indirect=True, scope="session")


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Target:
    """The server that a statement is tested on."""
    option: Callable[[str], Any] = request.config.getoption
    sample = option("--sample")
    content = json.loads(sample.read_text()) if sample else None
    if request.param == "url":
        return Target(option("--url"), option("--grpc"), option("--model"), content)
    service: Service = request.getfixturevalue(request.param)
    return Target(service.url, service.grpc, option("--model"), content)


@pytest.fixture
def payload(server: Target) -> Payload:
    """Valid inputs, one at least."""
    assert server.payload.tensors
    return server.payload


@pytest.fixture
def binary(server: Target) -> Target:
    """The server, if it has the binary tensor data extension."""
    if not server.has_binary:
        pytest.skip("the server neither lists binary_tensor_data nor reads binary tensors")
    return server


@pytest.fixture
def rpc(server: Target) -> Target:
    """The server, if its gRPC address is known."""
    if not server.has_grpc:
        pytest.skip("no gRPC address: give one with --grpc")
    return server


@pytest.fixture
def typed(rpc: Target) -> Target:
    """The server, if all inputs have typed contents over gRPC."""
    if any(tensor.datatype not in TYPED for tensor in rpc.payload.tensors):
        pytest.skip("the model has an FP16 input, which has no typed contents")
    return rpc
