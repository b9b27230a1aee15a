"""Asks with tritonclient, over HTTP with binary tensors and over gRPC with raw ones: `python -m tests.clients.triton`.

stdin has a JSON list of [protocol, address, model, request], stdout the answer to each.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from tests.contract.payload import Json, elements, from_json


def ask(protocol: str, address: str, model: str, request: Json) -> Json:
    """Health, metadata, the repository and one inference."""
    triton = importlib.import_module(f"tritonclient.{protocol}")
    client = triton.InferenceServerClient(address)
    payload = from_json(request)
    inputs = [triton.InferInput(tensor.name, list(tensor.array.shape), tensor.datatype) for tensor in payload.tensors]
    for given, tensor in zip(inputs, payload.tensors, strict=True):
        given.set_data_from_numpy(tensor.array)
    as_json = {"as_json": True} if protocol == "grpc" else {}
    metadata = client.get_model_metadata(model, **as_json)
    names = [output["name"] for output in metadata["outputs"]]
    index = client.get_model_repository_index(**as_json)
    result = client.infer(model, inputs, request_id="7", outputs=[triton.InferRequestedOutput(name) for name in names])
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready() and client.is_model_ready(model),
        "server": client.get_server_metadata(**as_json)["name"],
        "index": index.get("models", []) if isinstance(index, dict) else index,
        "load": refusal(client, model),
        "inputs": [tensor["name"] for tensor in metadata["inputs"]],
        "outputs": {name: elements(result.as_numpy(name)) for name in names},
    }


def refusal(client: Any, model: str) -> str:
    """What the client is told where it asks to load the model."""
    try:
        client.load_model(model)
    except InferenceServerException as error:
        return str(error.message())
    return ""


def fields() -> dict[str, dict[str, list[int]]]:
    """tritonclient's copy of the protocol's messages: field names to number and kind."""
    messages: dict[str, Any] = dict(service_pb2.DESCRIPTOR.message_types_by_name)
    return {name: {f.name: [f.number, f.type] for f in message.fields} for name, message in messages.items()}


if __name__ == "__main__":
    print(json.dumps([fields(), *(ask(*given) for given in json.load(sys.stdin))]))
