"""Other projects' clients, used with both services.

tritonclient and the KServe SDK both register the protobuf package `inference`, so one process can't load both. Each
has its own process, which asks everything once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tabserve.inference.grpc import open_inference_pb2 as pb
from tests.contract.payload import Json, elements
from tests.contract.target import Target
from tests.serving import ROOT, Service, running

NAME = "Breast-cancer_2026.v1"
"""A model's name with every character that is neither a letter nor a digit."""
ASKED = [(kind, protocol) for kind in ("predictor", "transformer", "renamed") for protocol in ("http", "grpc")]


@pytest.fixture(scope="module")
def services(predictor: Service, transformer: Service, bundle: Path, logs: Path) -> Generator[dict[str, Service]]:
    """Both services, and the predictor under another name."""
    with running(
        "tabserve_predictor", f"--model_dir={bundle}", f"--model_name={NAME}", log=logs / "renamed.log"
    ) as renamed:
        yield {"predictor": predictor, "transformer": transformer, "renamed": renamed}


@pytest.fixture(scope="module")
def targets(services: dict[str, Service]) -> dict[str, Target]:
    """Each service as a plain HTTP client sees it."""
    return {kind: Target(service.url, service.grpc, None, None) for kind, service in services.items()}


@pytest.fixture(scope="module")
def asks(targets: dict[str, Target], services: dict[str, Service]) -> list[Any]:
    """The requests that every client sends."""
    assert targets["renamed"].model == NAME
    addresses = {
        (kind, protocol): service.grpc if protocol == "grpc" else f"127.0.0.1:{service.http_port}"
        for kind, service in services.items()
        for protocol in ("http", "grpc")
    }
    return [
        (protocol, addresses[kind, protocol], targets[kind].model, targets[kind].payload.json())
        for kind, protocol in ASKED
    ]


def told_by(module: str, asks: list[Any]) -> list[Any]:
    """The answers that a client's process got."""
    command = [sys.executable, "-m", f"tests.clients.{module}"]
    done = subprocess.run(command, input=json.dumps(asks), capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    told: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.fixture(scope="module")
def triton(asks: list[Any]) -> list[Any]:
    """The answers that tritonclient got."""
    return told_by("triton", asks)


@pytest.fixture(scope="module")
def kserve_sdk(asks: list[Any]) -> list[Any]:
    """The answers that KServe's clients got."""
    return told_by("kserve_sdk", asks)


def answers(target: Target) -> dict[str, list[Any]]:
    """The outputs that a plain HTTP client gets from the service."""
    outputs = target.infer(target.payload.json()).outputs()
    return {name: elements(tensor.array) for name, tensor in outputs.items()}


@pytest.mark.parametrize(("kind", "protocol"), ASKED)
def test_tritonclient_lists_metadata_and_infers(
    targets: dict[str, Target], triton: list[Any], kind: str, protocol: str
) -> None:
    told: Json = triton[1 + ASKED.index((kind, protocol))]
    assert (told["live"], told["ready"], told["server"]) == (True, True, "tabserve")
    assert told["inputs"] == [tensor["name"] for tensor in targets[kind].metadata["inputs"]]
    assert told["outputs"] == answers(targets[kind])


@pytest.mark.parametrize(("kind", "protocol"), ASKED)
def test_tritonclient_reads_the_repository_and_loads_nothing(
    targets: dict[str, Target], triton: list[Any], kind: str, protocol: str
) -> None:
    told: Json = triton[1 + ASKED.index((kind, protocol))]
    assert [(each["name"], each["state"]) for each in told["index"]] == [(targets[kind].model, "READY")]
    assert "a new bundle is deployed as a new release" in told["load"]


@pytest.mark.parametrize(("kind", "protocol"), ASKED)
def test_kserve_s_clients_find_it_ready_and_infer(
    targets: dict[str, Target], kserve_sdk: list[Any], kind: str, protocol: str
) -> None:
    told: Json = kserve_sdk[ASKED.index((kind, protocol))]
    assert told["health"] == [True] * (5 if protocol == "http" else 3)
    assert (told["id"], told["model"]) == ("7", targets[kind].model)
    assert told["outputs"] == answers(targets[kind])


def test_the_messages_have_the_fields_of_tritonclient_s(triton: list[Any]) -> None:
    theirs: dict[str, dict[str, list[int]]] = triton[0]
    ours = {
        name: {field.name: [field.number, field.type] for field in message.fields}
        for name, message in pb.DESCRIPTOR.message_types_by_name.items()
    }
    assert ours.keys() <= theirs.keys()
    shared = {(name, field) for name in ours for field in ours[name].keys() & theirs[name].keys()}
    assert {one: ours[one[0]][one[1]] for one in shared} == {one: theirs[one[0]][one[1]] for one in shared}
    only_ours = {(name, field) for name in ours for field in ours[name].keys() - theirs[name].keys()}
    assert only_ours == {("ModelMetadataResponse", "properties")}
