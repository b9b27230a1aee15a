"""Encode requests to the predictor and decode its answers, as HTTP/1.1 with binary tensors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import quote

import msgspec
import orjson

from tabserve.inference.errors import (
    DeadlineExceeded,
    InferenceError,
    InvalidRequest,
    ModelNotFound,
    PredictionFailed,
    RequestTooLarge,
    Unavailable,
    UnsupportedMediaType,
)
from tabserve.inference.model import NATIVE, RECORDED
from tabserve.inference.tensors import (
    DATATYPES,
    InferRequest,
    InferResponse,
    Parameters,
    RequestedOutput,
    Tensor,
    binary_elements,
    elements_binary,
)
from tabserve_transformer.predictor_client.connection import Response

Parts: TypeAlias = tuple[bytes, bytes]
"""The parts of a request before and after its deadline."""

_PASSED_THROUGH: dict[int, type[InferenceError]] = {
    400: InvalidRequest,
    404: ModelNotFound,
    413: RequestTooLarge,
    415: UnsupportedMediaType,
    503: Unavailable,
    504: DeadlineExceeded,
}


class _Output(msgspec.Struct, gc=False):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int]


class _Answer(msgspec.Struct, gc=False):
    outputs: list[_Output]
    parameters: Parameters = {}


class _Refusal(msgspec.Struct):
    error: str


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_refusal = msgspec.json.Decoder(_Refusal).decode


class Codec:
    """Encodes requests to one model, and decodes the answers."""

    def __init__(self, host: str, model_name: str) -> None:
        path = f"/v2/models/{quote(model_name, safe='')}"
        self._infer = (
            f"POST {path}/infer HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/octet-stream\r\n".encode()
        )
        self.ready = f"GET {path}/ready HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()

    def encode(self, request: InferRequest, trace: Mapping[str, str]) -> Parts:
        """Encode the request's tensors and outputs, all binary, and which outputs are recorded.

        Its id and other parameters are not sent.
        """
        contents = [elements_binary(tensor.array) for tensor in request.inputs]
        inputs = tuple(
            (tensor.name, tensor.datatype, tensor.array.shape, len(data))
            for tensor, data in zip(request.inputs, contents, strict=True)
        )
        json = _head(inputs, request.outputs, request.parameters.get(RECORDED))
        sizes = b"inference-header-content-length: %d\r\ncontent-length: %d\r\n" % (
            len(json),
            len(json) + sum(map(len, contents)),
        )
        return self._infer + sizes + _trace_headers(trace), b"".join((b"\r\n", json, *contents))

    @staticmethod
    def with_timeout(parts: Parts, seconds: float) -> bytes:
        """The whole request, which says how long the transformer will wait for the answer."""
        return b"%bx-request-timeout-ms: %d\r\n%b" % (parts[0], max(1, int(seconds * 1000)), parts[1])


def decode(response: Response) -> InferResponse:
    """The answer's tensors.

    Raises the error that the predictor answered with if its client should see it, and PredictionFailed for other errors
    and for an answer that does not follow the protocol.
    """
    if response.status != 200:
        raise _refusal(response)
    try:
        size = int(response.headers.get(b"inference-header-content-length", len(response.body)))
        answer = _decode_answer(response.body[:size])
        outputs, at = [], size
        for output in answer.outputs:
            end = at + output.parameters["binary_data_size"]
            array = binary_elements(response.body[at:end], DATATYPES[output.datatype], output.shape)
            outputs.append(Tensor(output.name, output.datatype, array))
            at = end
    except (ValueError, KeyError) as error:  # msgspec.DecodeError is a ValueError
        raise PredictionFailed("the predictor's answer could not be read") from error
    return InferResponse(tuple(outputs), answer.parameters)


@lru_cache(maxsize=256)
def _head(
    inputs: tuple[tuple[str, str, tuple[int, ...], int], ...],
    outputs: tuple[RequestedOutput, ...],
    recorded: str | int | float | bool | None,
) -> bytes:
    """The JSON before the tensors' bytes. inputs: each input's name, datatype, shape and size."""
    recording = {} if recorded is None else {RECORDED: recorded}
    head: dict[str, Any] = {
        "inputs": [
            {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}
            for name, datatype, shape, size in inputs
        ],
        "parameters": {"binary_data_output": True, NATIVE: True, **recording},
    }
    if outputs:
        head["outputs"] = [{"name": output.name} for output in outputs]
    return orjson.dumps(head)


def _trace_headers(trace: Mapping[str, str]) -> bytes:
    if not trace:
        return b""
    lines = [f"{name}: {value}\r\n" for name, value in trace.items() if value.isprintable()]
    return "".join(lines).encode("latin-1", "replace")


def _refusal(response: Response) -> InferenceError:
    """The error in an answer, with the predictor's status and text if the client should see them."""
    kind = _PASSED_THROUGH.get(response.status)
    if kind is None and not 400 <= response.status < 500:
        return PredictionFailed("the predictor failed")
    try:
        message = _decode_refusal(response.body).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        message = f"the predictor answered with status {response.status}"
    error = (kind or InvalidRequest)(message)
    error.http_status = response.status
    retry_after = response.headers.get(b"retry-after", b"")
    if retry_after.isdigit():
        error.retry_after = int(retry_after)
    return error
