"""Asks models with KServe's own clients in all ways that KServe's own servers answer.

`python kserve_moved.py HTTP GRPC`, with a Python that has the SDK. stdin has a JSON object of rows: the features' names
to their values. stdout is the answers, by model and way.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx
import numpy as np
from grpc import RpcError
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

Columns = Mapping[str, list[float]]


def matrix(model: str, columns: Columns, *, binary: bool = False, dtype: str = "float64") -> InferRequest:
    """One matrix, under a name that no server knows."""
    values = np.array(list(columns.values()), dtype).T
    tensor = InferInput("any-name", list(values.shape), {"float64": "FP64", "float32": "FP32"}[dtype])
    tensor.set_data_from_numpy(values, binary_data=binary)
    return InferRequest(model, [tensor], request_id="7")


def frame(model: str, columns: Columns) -> InferRequest:
    """A column for each feature, which the servers make a DataFrame."""
    inputs = [InferInput(name, [len(values)], "FP64", data=list(values)) for name, values in columns.items()]
    return InferRequest(model, inputs, request_id="7", parameters={"content_type": "pd"})


def bodies(columns: Columns) -> dict[str, Any]:
    """Bodies of V1, by way."""
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    lists = [{name: values[at : at + 2] for name, values in columns.items()} for at in range(0, len(rows), 2)]
    keyed = [{name: dict(enumerate(values)) for name, values in columns.items()}]
    keyed = json.loads(json.dumps(keyed))
    return {
        "v1 instances": {"instances": rows},
        "v1 inputs": {"inputs": rows},
        "v1 both": {"inputs": rows, "instances": [[0.0] * len(columns)]},
        "v1 lists": {"instances": lists},
        "v1 keyed": {"inputs": keyed},
    }


def told(response: Any) -> Any:
    """An answer as JSON."""
    if isinstance(response, dict):
        return response
    outputs = [[one.name, one.datatype, list(one.shape), one.as_numpy().tolist()] for one in response.outputs]
    return {"model": response.model_name, "id": response.id, "outputs": outputs}


async def asked(ask: Awaitable[Any]) -> Any:
    """The answer, or that there is none."""
    try:
        return told(await ask)
    except (httpx.HTTPStatusError, RpcError) as error:
        return {"refused": str(error)}


async def ways(http: str, grpc: str, model: str, columns: Columns) -> dict[str, Any]:
    """A model's answers in every way."""
    first, second = (InferenceRESTClient(RESTConfig(protocol=version, timeout=60)) for version in ("v1", "v2"))
    remote, url = InferenceGRPCClient(grpc), f"http://{http}"
    requests = {
        "matrix": matrix(model, columns),
        "matrix of FP32": matrix(model, columns, dtype="float32"),
        "binary matrix": matrix(model, columns, binary=True),
        "frame": frame(model, columns),
    }
    found = {f"v2 {way}": await asked(second.infer(url, request, model)) for way, request in requests.items()}
    found |= {way: await asked(first.infer(url, body, model)) for way, body in bodies(columns).items()}
    found["grpc matrix"] = await asked(remote.infer(matrix(model, columns)))
    found["grpc raw matrix"] = await asked(remote.infer(matrix(model, columns, binary=True)))
    found["ready"] = [await second.is_model_ready(url, model), await remote.is_model_ready(model)]
    return found


async def main(http: str, grpc: str, models: Sequence[str], columns: Columns) -> None:
    """Ask every model."""
    asks: Callable[[str], Awaitable[dict[str, Any]]] = lambda model: ways(http, grpc, model, columns)  # noqa: E731
    print(json.dumps({model: await asks(model) for model in models}, default=bytes.decode))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:], json.load(sys.stdin)))
