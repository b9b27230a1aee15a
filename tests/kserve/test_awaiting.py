"""Hooks that await, over REST (V2 and V1) and gRPC."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import pytest

from tabserve.inference.grpc import open_inference_pb2 as pb
from tests.contract.payload import elements
from tests.contract.target import Answer, Target, grpc_outputs
from tests.docs.blocks import files
from tests.faults import wire
from tests.kserve.test_adapters import MODEL, RECORD, ROW
from tests.serving import ROOT, Service, running, start

HALF = [value / 2 for value in ROW]
WAYS = [
    "asyncio.sleep(0)",
    "asyncio.gather",
    "asyncio.TaskGroup",
    "asyncio.to_thread",
    "asyncio.wait_for",
    "asyncio.timeout",
    "anyio.fail_after",
    "aiohttp",
    "httpx",
]
KINDS = ["predictor", "transformer"]


@dataclass(frozen=True)
class Hooked:
    """A service whose hooks await, and the same service without hooks."""

    service: Service
    plain: Target
    instance: Any
    """One instance for the service's V1."""

    @property
    def target(self) -> Target:
        return Target(self.service.url, self.service.grpc, MODEL, None)

    def given(self, way: str) -> dict[str, str]:
        """The parameters that tell the hooks how to wait; they ask the waiting server, which must go on answering."""
        return {"way": way, "url": f"{self.service.url}/v2/health/live"}

    def v2(self, way: str) -> Any:
        return told(self.target.infer({**v2(ROW), "parameters": self.given(way)}))

    def v1(self, way: str) -> Any:
        return self.target.post(f"/v1/models/{MODEL}:predict", {"instances": [self.instance], **self.given(way)}).json()

    def grpc(self, way: str) -> Any:
        return outputs(self.target.call("ModelInfer", message(ROW, self.given(way))))

    def expected(self, protocol: str, way: str) -> Any:
        """The plain answer to half of everything, and the way."""
        if protocol == "v1":
            half = [value / 2 for value in ROW]
            instance = half if isinstance(self.instance, list) else dict(zip(RECORD, half, strict=True))
            answer = self.plain.post(f"/v1/models/{MODEL}:predict", {"instances": [instance]})
            return {**answer.json(), "awaited": way}
        return {**told(self.plain.infer(v2(HALF))), "awaited": [way]}


def v2(row: list[float]) -> dict[str, Any]:
    return {"inputs": [{"name": "input-0", "datatype": "FP64", "shape": [1, len(row)], "data": row}]}


def message(row: list[float], parameters: dict[str, str]) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="input-0", datatype="FP64", shape=[1, len(row)]).contents.fp64_contents.extend(row)
    for name, value in parameters.items():
        request.parameters[name].string_param = value
    return request


def told(answer: Answer) -> dict[str, list[Any]]:
    return {name: elements(tensor.array) for name, tensor in answer.outputs().items()}


def outputs(answer: pb.ModelInferResponse) -> dict[str, list[Any]]:
    return {name: elements(tensor.array) for name, tensor in grpc_outputs(answer).items()}


@pytest.fixture(scope="module", params=KINDS)
def hooked(
    request: pytest.FixtureRequest, bundle: Path, predictor: Service, transformer: Service, logs: Path
) -> Generator[Hooked]:
    """Both services, with hooks that await."""
    kind: str = request.param
    plain = {"predictor": predictor, "transformer": transformer}[kind]
    hooks = f"--model_class=tests.kserve.awaiting:Awaiting{kind.title()}"
    options = [f"--model_dir={bundle}", hooks]
    options += [f"--predictor_host=127.0.0.1:{predictor.http_port}"] if kind == "transformer" else []
    with running(f"tabserve_{kind}", *options, log=logs / f"awaiting_{kind}.log") as service:
        service.wait_for(lambda: service.status(f"/v2/models/{MODEL}/ready") == 200, "ready for its model")
        yield Hooked(service, Target(plain.url, plain.grpc, MODEL, None), ROW if kind == "predictor" else RECORD)


@pytest.fixture(scope="module")
def ours(bundle: Path, predictor: Service, logs: Path) -> Generator[Hooked]:
    """The predictor under our server."""
    hooks = "--model_class=tests.kserve.awaiting:AwaitingPredictor"
    with running("tabserve_predictor", f"--model_dir={bundle}", hooks, log=logs / "awaiting_ours.log") as service:
        yield Hooked(service, Target(predictor.url, predictor.grpc, MODEL, None), ROW)


@pytest.mark.parametrize(
    ("way", "protocol"),
    [*((way, "v2") for way in WAYS), *((way, protocol) for protocol in ("v1", "grpc") for way in WAYS[:2])],
)
def test_hooks_may_await_in_any_way(hooked: Hooked, way: str, protocol: str) -> None:
    asked: Callable[[str], Any] = getattr(hooked, protocol)

    assert asked(way) == hooked.expected(protocol, way)


@pytest.mark.parametrize("protocol", ["v2", "v1", "grpc"])
def test_requests_under_way_together_have_contexts_of_their_own(hooked: Hooked, protocol: str) -> None:
    asked: Callable[[str], Any] = getattr(hooked, protocol)
    with ThreadPoolExecutor(2) as clients:
        answers = [one.result() for one in [clients.submit(asked, "together") for _ in range(2)]]

    assert answers == [hooked.expected(protocol, "together")] * 2


def test_a_hook_is_cancelled_when_its_client_goes_away_over_rest(ours: Hooked) -> None:
    content = json.dumps({**v2(ROW), "parameters": ours.given("held")}).encode()
    path = f"/v2/models/{MODEL}/infer"
    with wire.connection(ours.service.http_port) as client:
        client.sendall(wire.post(path, f"Content-Length: {len(content)}", body=content))
        assert ours.v2("until held")["awaited"] == ["until held"]

    assert ours.v2("until abandoned")["awaited"] == ["until abandoned"]


def test_a_hook_is_cancelled_when_its_client_gives_up_over_grpc(ours: Hooked) -> None:
    with grpc.insecure_channel(ours.service.grpc) as channel:
        method = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer", request_serializer=pb.ModelInferRequest.SerializeToString
        )
        call = method.future(message(ROW, ours.given("held")), timeout=60)
        assert ours.grpc("until held")["awaited"] == ["until held"]
        call.cancel()

    assert ours.grpc("until abandoned")["awaited"] == ["until abandoned"]


def test_a_hook_that_cancels_itself_is_a_500(ours: Hooked) -> None:
    refused = ours.target.infer({**v2(ROW), "parameters": ours.given("cancelled")})

    assert (refused.status, refused.json()) == (500, {"error": "prediction failed"})
    with pytest.raises(grpc.RpcError) as failure:
        ours.grpc("cancelled")
    assert (failure.value.code(), failure.value.details()) == (grpc.StatusCode.INTERNAL, "prediction failed")


class Patients(BaseHTTPRequestHandler):
    """The service that the documented hook asks: one patient, 7."""

    def do_GET(self) -> None:
        body = json.dumps(RECORD).encode()
        self.send_response(200 if self.path == "/7" else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def patients() -> Generator[str]:
    """The address of the running Patients service."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Patients) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_documented_hook_works(
    patients: str, predictor: Service, transformer: Service, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "my_hooks.py").write_text(files((ROOT / "docs/serving.md").read_text())["my_hooks.py"])
    options = [f"--model_dir={bundle}", "--model_class=my_hooks:Completed"]
    options += [f"--predictor_host=127.0.0.1:{predictor.http_port}"]
    environment = {"PYTHONPATH": str(tmp_path), "PATIENTS": patients}
    service = start("tabserve_transformer", *options, log=tmp_path / "log", environment=environment)
    path = f"/v1/models/{MODEL}:predict"
    try:
        service.wait_for(lambda: service.status(f"/v2/models/{MODEL}/ready") == 200, "ready for its model")
        target = Target(service.url, None, MODEL, None)
        known = target.post(path, {"instances": [{"patient": 7}]})
        unknown = target.post(path, {"instances": [{"patient": 7}, {"patient": 8}]})
    finally:
        service.kill()

    assert known.json() == Target(transformer.url, None, MODEL, None).post(path, {"instances": [RECORD]}).json()
    assert (unknown.status, unknown.json()) == (400, {"error": "record 1: unknown patient"})
