"""Asks with KServe's own clients, InferenceRESTClient and InferenceGRPCClient: `python -m tests.clients.kserve_sdk`.

stdin has a JSON list of [protocol, address, model, request], stdout the answer to each. These clients have no call
for metadata.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

from tests.contract.payload import Json, elements, from_json


def infer_request(model: str, request: Json, binary: bool) -> Any:
    """The request as KServe's type, with binary tensors or without."""
    payload = from_json(request)
    inputs = [InferInput(tensor.name, list(tensor.array.shape), tensor.datatype) for tensor in payload.tensors]
    for given, tensor in zip(inputs, payload.tensors, strict=True):
        given.set_data_from_numpy(tensor.array, binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=inputs, request_id="7")


async def rest(address: str, model: str, request: Json) -> tuple[list[bool], Any]:
    """Health, also by V1, and one inference over REST, with binary tensors."""
    client, url = InferenceRESTClient(RESTConfig(protocol="v2")), f"http://{address}"
    health = [await client.is_server_live(url), await client.is_server_ready(url)]
    health.append(await client.is_model_ready(url, model))
    first = InferenceRESTClient(RESTConfig(protocol="v1"))
    health += [await first.is_server_live(url), await first.is_model_ready(url, model)]
    return health, await client.infer(url, infer_request(model, request, binary=True), model_name=model)


async def rpc(address: str, model: str, request: Json) -> tuple[list[bool], Any]:
    """Health and one inference over gRPC, with typed contents."""
    client = InferenceGRPCClient(address)
    health = [await client.is_server_live(), await client.is_server_ready(), await client.is_model_ready(model)]
    return health, await client.infer(infer_request(model, request, binary=False))


async def ask(protocol: str, address: str, model: str, request: Json) -> Json:
    """Health and one inference."""
    health, response = await {"http": rest, "grpc": rpc}[protocol](address, model, request)
    outputs = {output.name: elements(output.as_numpy()) for output in response.outputs}
    return {"health": health, "outputs": outputs, "id": response.id, "model": response.model_name}


async def main() -> None:
    """Send the requests one after the other."""
    print(json.dumps([await ask(*given) for given in json.load(sys.stdin)]))


if __name__ == "__main__":
    asyncio.run(main())
