"""Read a server's answers, and check that they are the expected ones."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from math import prod
from typing import Any

import msgspec
from google.protobuf.message import DecodeError

from tabserve.inference.grpc import open_inference_pb2 as pb
from tabserve.inference.tensors import DATATYPES, binary_elements
from tabserve_loadtest.payloads import Expected, Payload
from tabserve_loadtest.target import Kind

RELEASES = ("tabserve-transformer-release", "tabserve-predictor-release")
REFUSALS = (429, 503)
UNREADABLE = (ValueError, KeyError, TypeError, struct.error, DecodeError)
"""The exceptions that `Checker.read` raises."""


class Answer(msgspec.Struct):
    """An HTTP answer, or the HTTP answer that means the same as a gRPC one. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def release(self) -> str:
        """The release that the answer comes from; both, if transformer and predictor are of different ones."""
        found = dict.fromkeys(self.headers[name] for name in RELEASES if name in self.headers)
        return " + ".join(found)

    @property
    def said(self) -> str:
        """The status and the beginning of the body, which tell a gateway's refusals from a service's."""
        return f"{self.status} {self.body[:120].decode(errors='replace').rstrip()}"

    @property
    def refused(self) -> bool:
        """Whether the server refused to do this now."""
        return self.status in REFUSALS


class Checker:
    """Checks answers to requests of one kind; an answer equal to one found right is not read again."""

    def __init__(self, kind: Kind) -> None:
        self._decode = {"records": _predictions, "grpc": _grpc_outputs}.get(kind, _outputs)
        self._right: dict[int, bytes] = {}

    def problem(self, index: int, payload: Payload, answer: Answer) -> str | None:
        """What is wrong with a 200 for the payload with this index, None if nothing is."""
        if self._right.get(index) == answer.body:
            return None
        assert payload.expected is not None
        try:
            got = self._decode(answer)
        except UNREADABLE as error:
            return f"unreadable answer: {type(error).__name__}"
        found = difference(payload.expected, got, payload.tolerance)
        if found is None:
            self._right[index] = answer.body
        return found

    def read(self, answer: Answer) -> Expected:
        """The answer in the form of `Payload.expected`. Raises UNREADABLE."""
        return self._decode(answer)


def difference(wanted: Any, got: Any, tolerance: float, at: str = "answer") -> str | None:
    """The first place where two answers differ; `got` may have more than `wanted`."""
    if isinstance(wanted, dict):
        if not isinstance(got, dict):
            return f"{at}: expected an object"
        missing = next((key for key in wanted if key not in got), None)
        if missing is not None:
            return f"{at}: `{missing}` is missing"
        found = (difference(value, got[key], tolerance, f"{at}.{key}") for key, value in wanted.items())
        return next((one for one in found if one), None)
    if isinstance(wanted, list):
        if not isinstance(got, list) or len(got) != len(wanted):
            return f"{at}: expected {len(wanted)} elements"
        found = (difference(one, other, tolerance, at) for one, other in zip(wanted, got, strict=True))
        return next((one for one in found if one), None)
    return None if _same(wanted, got, tolerance) else f"{at}: not the expected value"


def _same(wanted: Any, got: Any, tolerance: float) -> bool:
    if isinstance(wanted, float) and wanted != wanted:
        return got is None or got != got
    if isinstance(wanted, float | int) and not isinstance(wanted, bool):
        return isinstance(got, float | int) and abs(got - wanted) <= tolerance * max(1.0, abs(wanted))
    return bool(wanted == got)


def _predictions(answer: Answer) -> Expected:
    return {"predictions": json.loads(answer.body)["predictions"]}


def _outputs(answer: Answer) -> Expected:
    size = answer.headers.get("inference-header-content-length")
    at = int(size) if size else len(answer.body)
    found: Expected = {}
    for output in json.loads(answer.body[:at])["outputs"]:
        length = (output.get("parameters") or {}).get("binary_data_size")
        if length is None:
            found[output["name"]] = _flat(output["data"])
        else:
            found[output["name"]] = _elements(output["datatype"], output["shape"], answer.body[at : at + length])
            at += length
    return found


def _flat(data: Any) -> list[Any]:
    if any(isinstance(element, list) for element in data):
        return [element for part in data for element in _flat(part)]
    return list(data)


def _elements(datatype: str, shape: list[int], raw: bytes) -> list[Any]:
    values = binary_elements(raw, DATATYPES[datatype], shape).ravel().tolist()
    return [value.decode() if isinstance(value, bytes) else value for value in values]


def _grpc_outputs(answer: Answer) -> Expected:
    message = pb.ModelInferResponse.FromString(answer.body)
    found: Expected = {}
    for index, output in enumerate(message.outputs):
        if message.raw_output_contents:
            raw = message.raw_output_contents[index]
            found[output.name] = _elements(output.datatype, list(output.shape), raw)
        else:
            fields = output.contents.ListFields()
            values = list(fields[0][1]) if fields else []
            found[output.name] = [value.decode() if isinstance(value, bytes) else value for value in values]
        if len(found[output.name]) != prod(output.shape):
            raise ValueError("shape and elements disagree")
    return found
