"""The checks of `helm test`: health, metadata, a reference row over each protocol, a bad request.

Takes ENTRY (transformer or predictor), MODEL, REST and GRPC (addresses, empty for none), SECONDS_TO_WAIT, BUNDLE (its
folder; default: /mnt/models) and TLS (a folder with `ca.crt`, `tls.crt` and `tls.key`) from its environment.
"""

from __future__ import annotations

import json
import math
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import Message

from tabserve import bundle as bundles
from tabserve.bundle import Bundle, expected
from tabserve.inference.grpc import open_inference_pb2 as pb
from tabserve.inference.model import NATIVE

CONTENTS = {"BOOL": "bool", "INT64": "int64", "FP32": "fp32", "FP64": "fp64", "BYTES": "bytes"}
DATATYPES = {str: "BYTES", bool: "BOOL", int: "INT64", float: "FP64"}

OURS = {"parameters": {NATIVE: True}}
"""Asks for the model's own answers, also where the setting `compatible` gives others."""


class Cell(NamedTuple):
    """An input of one row."""

    name: str
    datatype: str
    value: Any


class Question(NamedTuple):
    """A reference row, the output to ask for and the expected answer."""

    row: list[Cell]
    output: str
    wanted: str | float


class Release(NamedTuple):
    """A model and its addresses, of which one is empty if its protocol is not served, and the folder of TLS."""

    model: str
    rest: str
    grpc: str
    tls: str = ""

    def http(self, path: str, body: object = None) -> tuple[int, Any]:
        """The status and the JSON of a request; status 0 and the reason without an answer."""
        data = None if body is None else json.dumps(body).encode()
        address = f"https://{self.rest}:80" if self.tls else f"http://{self.rest}"
        request = urllib.request.Request(f"{address}{path}", data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10, context=self.context()) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")
        except OSError as error:
            return 0, {"error": str(error)}

    def context(self) -> ssl.SSLContext | None:
        """TLS with the release, if it has TLS."""
        if not self.tls:
            return None
        context = ssl.create_default_context(cafile=f"{self.tls}/ca.crt")
        context.load_cert_chain(f"{self.tls}/tls.crt", f"{self.tls}/tls.key")
        return context

    def channel(self) -> Any:
        """A channel to the release."""
        if not self.tls:
            return grpc.insecure_channel(self.grpc)
        ca, key, cert = (Path(self.tls, name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
        return grpc.secure_channel(self.grpc, grpc.ssl_channel_credentials(ca, key, cert))

    def call(self, method: str, message: Message) -> Any:
        """The answer to a gRPC call. Raises grpc.RpcError."""
        with self.channel() as channel:
            stub = channel.unary_unary(
                f"/inference.GRPCInferenceService/{method}",
                request_serializer=type(message).SerializeToString,
                response_deserializer=getattr(pb, f"{method}Response").FromString,
            )
            return stub(message, timeout=10)

    def ready(self) -> tuple[bool, object]:
        """Whether the release says that it is ready, over a protocol it serves, and otherwise what it says."""
        if self.rest:
            status, body = self.http("/v2/health/ready")
            return status == 200, body
        try:
            return self.call("ServerReady", pb.ServerReadyRequest()).ready, "not ready"
        except grpc.RpcError as error:
            return False, error.details()


def check(what: str, ok: object, detail: object) -> None:
    """Print one check's result; end the test if it failed."""
    print("ok  " if ok else "FAIL", what, "" if ok else detail, flush=True)
    if not ok:
        raise SystemExit(1)


def question(found: Bundle, entry: str) -> Question:
    """The question for the component that clients call."""
    if entry == "predictor":
        row = [cell for cell in features(found) if not missing(cell.value)]
        return Question(row, "predict", float(found.reference.outputs["predict"].ravel()[0]))
    row = [Cell(name, DATATYPES[type(value)], value) for name, value in expected.record(found, 0).items()]
    wanted = expected.decision(found, 0)
    output = next(name for name in ("decision", "score", "label") if name in wanted)
    return Question(row, output, wanted[output])


def features(found: Bundle) -> Iterator[Cell]:
    """The first reference row as the model sees it."""
    columns = found.reference.features
    if not isinstance(columns, dict):
        columns = {feature.name: columns[:, at] for at, feature in enumerate(found.manifest.model.features)}
    for name, column in columns.items():
        yield Cell(name, "BYTES" if column.dtype == object else "FP64", column[0])


def missing(value: object) -> bool:
    """Whether a cell has no value."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def same(got: Any, wanted: Any) -> bool:
    """Whether an answer is the expected one, to the precision of a tolerance."""
    return math.isclose(got, wanted, rel_tol=1e-5, abs_tol=1e-5) if isinstance(wanted, float) else got == wanted


def over_rest(release: Release, asked: Question) -> None:
    """The checks over REST."""
    model = f"/v2/models/{release.model}"
    status, body = release.http(model)
    check("metadata", status == 200 and body["name"] == release.model and body["inputs"], body)
    inputs = [{"name": n, "datatype": d, "shape": [1], "data": [v]} for n, d, v in asked.row]
    status, body = release.http(f"{model}/infer", {**OURS, "inputs": inputs, "outputs": [{"name": asked.output}]})
    check(f"V2 {asked.output}", status == 200 and same(body["outputs"][0]["data"][0], asked.wanted), (body, asked))
    status, body = release.http(f"{model}/infer", {**OURS, "inputs": [{**inputs[0], "name": "no such input"}]})
    check("a bad request is a 400", status == 400, (status, body))


def decide(release: Release, found: Bundle) -> None:
    """The check over V1: a record's decision."""
    status, body = release.http(f"/v1/models/{release.model}:predict", {"instances": [expected.record(found, 0)]})
    wanted = expected.decision(found, 0)
    got = body.get("predictions", [{}])[0]
    check("V1 decision", status == 200 and all(same(got.get(name), value) for name, value in wanted.items()), body)


def over_grpc(release: Release, asked: Question) -> None:
    """The checks over gRPC."""
    meta = release.call("ModelMetadata", pb.ModelMetadataRequest(name=release.model))
    check("gRPC metadata", meta.name == release.model and meta.inputs, meta)
    request = pb.ModelInferRequest(
        model_name=release.model,
        inputs=[tensor(cell) for cell in asked.row],
        outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=asked.output)],
    )
    request.parameters[NATIVE].bool_param = True
    answer = release.call("ModelInfer", request).outputs[0]
    got = getattr(answer.contents, f"{CONTENTS[answer.datatype]}_contents")[0]
    check(f"gRPC {asked.output}", same(got.decode() if isinstance(got, bytes) else float(got), asked.wanted), answer)
    code = refusal(release)
    check("a bad request is INVALID_ARGUMENT", code is grpc.StatusCode.INVALID_ARGUMENT, code)


def tensor(cell: Cell) -> pb.ModelInferRequest.InferInputTensor:
    """An input for gRPC."""
    found = pb.ModelInferRequest.InferInputTensor(name=cell.name, datatype=cell.datatype, shape=[1])
    content = str(cell.value).encode() if cell.datatype == "BYTES" else cell.value
    getattr(found.contents, f"{CONTENTS[cell.datatype]}_contents").append(content)
    return found


def refusal(release: Release) -> object:
    """The status of a bad request over gRPC."""
    try:
        return release.call("ModelInfer", pb.ModelInferRequest(model_name=release.model))
    except grpc.RpcError as error:
        return error.code()


def wait(release: Release, seconds: float) -> None:
    """Wait until the release is ready; ends the test when the time is over."""
    until = time.monotonic() + seconds
    while not (state := release.ready())[0]:
        if time.monotonic() > until:
            check("ready", False, state[1])
        time.sleep(1)
    check("ready", True, "")


def main() -> None:
    """Wait until ready, then check."""
    release = Release(os.environ["MODEL"], os.environ["REST"], os.environ["GRPC"], os.environ.get("TLS", ""))
    wait(release, float(os.environ["SECONDS_TO_WAIT"]))
    found = bundles.load(os.environ.get("BUNDLE", "/mnt/models"), opened=())
    asked = question(found, os.environ["ENTRY"])
    if release.rest:
        over_rest(release, asked)
    if release.rest and os.environ["ENTRY"] == "transformer":
        decide(release, found)
    if release.grpc:
        over_grpc(release, asked)


if __name__ == "__main__":
    main()
