"""Asks models as MLServer's documentation shows, with its codecs and converters: `mlserver_moved.py HTTP GRPC MODEL…`.

Runs with a Python that has MLServer. stdin has a JSON object of rows: the features' names to their values. stdout is
the answers, by model and way.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from http.client import HTTPConnection
from typing import Any

import grpc
import pandas as pd
from mlserver.codecs import NumpyCodec, NumpyRequestCodec, PandasCodec, StringCodec
from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import InferenceRequest, InferenceResponse, RequestInput, RequestOutput

Columns = Mapping[str, list[float]]


def requests(columns: Columns) -> dict[str, InferenceRequest]:
    """Requests for the default output, by way; and one for an output that not every model has."""
    frame = pd.DataFrame(columns)
    values = frame.to_numpy()
    plain = RequestInput(name="any-name", datatype="FP32", shape=list(values.shape), data=values.ravel().tolist())
    tagged = NumpyCodec.encode_input("predict-me", values)
    return {
        "numpy": NumpyRequestCodec.encode_request(values),
        "plain": InferenceRequest(id="7", inputs=[plain]),
        "tagged": InferenceRequest(id="7", inputs=[tagged]),
        "pandas": PandasCodec.encode_request(frame, use_bytes=False),
        "predict": InferenceRequest(inputs=[plain], outputs=[RequestOutput(name="predict")]),
        "predict_proba": InferenceRequest(inputs=[plain], outputs=[RequestOutput(name="predict_proba")]),
        "both": InferenceRequest(
            inputs=[plain], outputs=[RequestOutput(name="predict_proba"), RequestOutput(name="predict")]
        ),
    }


def told(response: InferenceResponse) -> dict[str, Any]:
    """An answer as the codecs decode it, with all that is around the tensors."""
    outputs = [
        [one.name, one.datatype, one.shape, one.parameters and one.parameters.content_type, _decoded(one)]
        for one in response.outputs
    ]
    return {"model": response.model_name, "id": response.id, "outputs": outputs}


def _decoded(output: Any) -> Any:
    """The output's values; NumpyCodec can't read texts that came over gRPC."""
    if output.datatype == "BYTES":
        return StringCodec.decode_output(output)
    return NumpyCodec.decode_output(output).tolist()


def over_rest(http: str, model: str, request: InferenceRequest) -> Any:
    """The answer over REST, or its error."""
    connection = HTTPConnection(http, timeout=60)
    body = request.model_dump_json(exclude_none=True)
    connection.request("POST", f"/v2/models/{model}/infer", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    content = json.loads(answer.read())
    connection.close()
    if answer.status != 200:
        return {"refused": answer.status}
    response = InferenceResponse.model_validate(content)
    whole = NumpyRequestCodec.decode_response(response).tolist() if len(response.outputs) == 1 else None
    return {**told(response), "whole": whole}


def over_grpc(address: str, model: str, request: InferenceRequest, *, raw: bool) -> Any:
    """The answer over gRPC, or its error."""
    with grpc.insecure_channel(address) as channel:
        message = ModelInferRequestConverter.from_types(request, model_name=model, model_version=None, use_raw=raw)
        try:
            response = GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=60)
        except grpc.RpcError as error:
            return {"refused": error.code().name}
    return told(ModelInferResponseConverter.to_types(response))


def index(http: str) -> list[list[str]]:
    """The names and states in the repository."""
    connection = HTTPConnection(http, timeout=60)
    connection.request("POST", "/v2/repository/index", json.dumps({"ready": True}))
    listed = json.loads(connection.getresponse().read())
    connection.close()
    return sorted([one["name"], one["state"]] for one in listed)


def without_made_id(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer without an id that the server made."""
    return answer if answer.get("id") == "7" else answer | {"id": ""}


def main(http: str, address: str, *models: str) -> None:
    """Ask every model."""
    columns = json.load(sys.stdin)
    found: dict[str, Any] = {}
    for model in models:
        asks = requests(columns)
        answers = {f"rest {way}": over_rest(http, model, request) for way, request in asks.items()}
        for way in ("plain", "pandas", "both"):
            answers[f"grpc {way}"] = over_grpc(address, model, requests(columns)[way], raw=False)
        answers["grpc raw"] = over_grpc(address, model, requests(columns)["tagged"], raw=True)
        found[model] = {way: without_made_id(answer) for way, answer in answers.items()}
        found[model]["index"] = [one for one in index(http) if one[0] == model]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
