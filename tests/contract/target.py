"""A V2 server as a target: HTTP requests, gRPC calls, and what it says about itself."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from email.message import Message
from functools import cached_property
from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from urllib.parse import quote, urlsplit

import grpc
import pytest

from tabserve.inference.grpc import open_inference_pb2 as pb
from tests.contract.payload import (
    TYPED,
    Json,
    Payload,
    Tensor,
    from_json,
    from_metadata,
    tensor_from_elements,
    tensor_from_json,
    tensor_from_raw,
)

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """The answer to an HTTP request."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        """The body as JSON; NaN and Infinity are not JSON."""
        return json.loads(self.body, parse_constant=_refuse_constant)

    def outputs(self) -> dict[str, Tensor]:
        """The output tensors of an inference response, JSON and binary, by name."""
        assert self.status == 200, f"{self.status} {self.body[:500]!r}"
        size = self.headers["Inference-Header-Content-Length"]
        end = int(size) if size else len(self.body)
        tensors, at = {}, end
        for spec in json.loads(self.body[:end], parse_constant=_refuse_constant)["outputs"]:
            length = (spec.get("parameters") or {}).get("binary_data_size")
            raw = self.body[at : at + (length or 0)]
            at += length or 0
            tensors[spec["name"]] = tensor_from_json(spec) if length is None else tensor_from_raw(spec, raw)
        assert at == len(self.body), f"expected {at} bytes, got {len(self.body)}"
        return tensors

    def assert_error(self, lowest: int = 400, highest: int = 599) -> str:
        """The text of `{"error": text}`, which a failed request must have with a status in the range."""
        assert lowest <= self.status <= highest, f"expected {lowest} to {highest}, got {self.status}: {self.body!r}"
        content = self.json()
        error = content.get("error") if isinstance(content, dict) else None
        assert isinstance(error, str), f'expected {{"error": text}}, got {self.status}: {self.body!r}'
        assert error.strip(), f"an error without a text: {self.body!r}"
        return error

    def assert_refused(self) -> str:
        """The text of an error that is the client's fault, a 4xx."""
        return self.assert_error(400, 499)


def _refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


class Target:
    """One model of one server.

    sample: a JSON inference request, for servers whose metadata does not say what the model takes.
    """

    def __init__(self, url: str, grpc_address: str | None, model: str | None, sample: Json | None) -> None:
        self._parts = urlsplit(url)
        self._channel = grpc.insecure_channel(grpc_address) if grpc_address else None
        self._model = model
        self._sample = sample

    @cached_property
    def model(self) -> str:
        """The model's name; by default the only one in `GET v1/models` or KServe's `GET v2/models`."""
        if self._model:
            return self._model
        for path in ("/v2/models", "/v1/models"):
            answer = self.http("GET", path)
            if answer.status == 200:
                return str(answer.json()["models"][0])
        raise AssertionError("this server does not list its models: name one with --model")

    @cached_property
    def path(self) -> str:
        """`/v2/models/{name}`."""
        return f"/v2/models/{quote(self.model)}"

    @cached_property
    def server(self) -> Json:
        """Server metadata."""
        return dict(self.http("GET", "/v2").json())

    @cached_property
    def metadata(self) -> Json:
        """Model metadata."""
        return dict(self.http("GET", self.path).json())

    @cached_property
    def payload(self) -> Payload:
        """Some rows of valid inputs."""
        payload = from_json(self._sample) if self._sample else from_metadata(self.metadata["inputs"])
        assert payload.tensors, "the metadata names no inputs: give a request with --sample"
        return payload

    @cached_property
    def has_binary(self) -> bool:
        """Whether the server has the binary tensor data extension: it says so, or answers a request that uses it."""
        listed = "binary_tensor_data" in self.server["extensions"]
        return listed or self.infer_binary(*self.payload.binary()).status == 200

    def http(
        self, method: str, path: str, body: bytes | str | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send one HTTP request on its own connection."""
        kind = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        with closing(kind(self._parts.netloc, timeout=TIMEOUT_SECONDS)) as connection:
            connection.request(method, self._parts.path.rstrip("/") + path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def post(self, path: str, content: Any) -> Answer:
        """Post a JSON body to a path."""
        return self.http("POST", path, json.dumps(content), {"Content-Type": "application/json"})

    def infer(self, content: Any) -> Answer:
        """Send a JSON inference request."""
        return self.post(f"{self.path}/infer", content)

    def infer_binary(self, body: bytes, headers: dict[str, str]) -> Answer:
        """Send an inference request with binary tensors."""
        return self.http("POST", f"{self.path}/infer", body, headers)

    @property
    def has_grpc(self) -> bool:
        """Whether an address for gRPC is known."""
        return self._channel is not None

    def call(self, method: str, message: Any = None) -> Any:
        """Make a gRPC call, by default with an empty message. Raises grpc.RpcError."""
        assert self._channel is not None
        request = getattr(pb, f"{method}Request")
        invoke = self._channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=getattr(pb, f"{method}Response").FromString,
        )
        return invoke(message or request(), timeout=TIMEOUT_SECONDS)

    def refusal(self, method: str, message: Any) -> grpc.StatusCode:
        """The status of a gRPC call that must fail."""
        with pytest.raises(grpc.RpcError) as failure:
            self.call(method, message)
        status: grpc.StatusCode = failure.value.code()
        assert failure.value.details().strip(), f"{status} without a text"
        return status


def grpc_outputs(response: pb.ModelInferResponse) -> dict[str, Tensor]:
    """The output tensors of a gRPC response, from raw or typed contents."""
    tensors = {}
    for index, output in enumerate(response.outputs):
        spec = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        if response.raw_output_contents:
            tensors[output.name] = tensor_from_raw(spec, response.raw_output_contents[index])
        else:
            tensors[output.name] = tensor_from_elements(spec, list(getattr(output.contents, TYPED[output.datatype])))
    return tensors
