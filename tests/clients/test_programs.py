"""Programs in several languages ask the transformer for a decision, each as its language does it by itself."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.contract.payload import Json
from tests.serving import Service

PROGRAMS = Path(__file__).parent / "programs"
MODEL = "breast-cancer"
SERVICE = "inference.GRPCInferenceService"


def told_by(program: str, file: str, *arguments: str, record: Json) -> Any:
    """The JSON that a program prints for a record, skipping the test where there is no such program."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"there is no {program} here")
    return answered([path, str(PROGRAMS / file), *arguments], record)


def answered(command: Sequence[str], record: Json) -> Any:
    """The JSON that a command prints for a record."""
    done = subprocess.run(command, input=json.dumps(record), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_javascript_by_fetch(transformer: Service, record: Json, decision: str) -> None:
    assert told_by("node", "ask.mjs", transformer.url, record=record)["decision"] == decision


def test_java_by_its_default_client_with_a_body_of_unknown_length(
    transformer: Service, record: Json, decision: str
) -> None:
    told = told_by("java", "Ask.java", transformer.url, MODEL, record=record)

    assert [one["decision"] for one in told["predictions"]] == [decision]


def test_python_by_its_standard_library(transformer: Service, record: Json, decision: str) -> None:
    body = json.dumps({"instances": [record]}).encode()
    with urllib.request.urlopen(f"{transformer.url}/v1/models/{MODEL}:predict", body, timeout=60) as answer:
        assert json.load(answer)["predictions"][0]["decision"] == decision


async def test_python_asynchronously(transformer: Service, record: Json, decision: str) -> None:
    async with httpx.AsyncClient(base_url=transformer.url, timeout=60) as client:
        asked = [client.post(f"/v1/models/{MODEL}:predict", json={"instances": [record] * rows}) for rows in (1, 2)]
        answers = [answer.json()["predictions"] for answer in await asyncio.gather(*asked)]

    assert [[one["decision"] for one in answer] for answer in answers] == [[decision], [decision] * 2]


def test_python_by_reflection(transformer: Service, record: Json, decision: str) -> None:
    """The client knows no message beforehand: all of them come from the server."""
    with grpc.insecure_channel(transformer.grpc) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = list(database.get_services())
        method = DescriptorPool(database).FindServiceByName(SERVICE).FindMethodByName("ModelInfer")
        request: Any = GetMessageClass(method.input_type)(model_name=MODEL, outputs=[{"name": "decision"}])
        for name, value in record.items():
            request.inputs.add(name=name, datatype="FP64", shape=[1], contents={"fp64_contents": [value]})
        read: Any = GetMessageClass(method.output_type).FromString
        answer = channel.unary_unary(f"/{SERVICE}/ModelInfer", type(request).SerializeToString, read)(
            request, timeout=60
        )

    assert services == ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", SERVICE]
    assert answer.outputs[0].contents.bytes_contents == [decision.encode()]
