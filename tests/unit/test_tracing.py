"""Traces: four spans for a request through both services, nothing of the request in them, no cost when off."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import click
import grpc
import pytest

from tabserve.bundle import expected, load
from tabserve.inference.errors import InferenceError, InvalidRequest, PredictorUnavailable
from tabserve.inference.grpc import open_inference_pb2 as pb
from tabserve.inference.model import Context
from tabserve.inference.settings import ServerSettings, read
from tabserve.inference.tracing import tracing
from tests.otlp import Receiver, Span, receiving
from tests.serving import Service, free_port, start
from tests.unit.test_imports import loaded_by

SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}
NAMES = ["transformer", "predictor", "queue", "engine"]
CALLER = "00f067aa0ba902b7"


class Traced(NamedTuple):
    """A transformer whose spans, and those of its predictor, are received."""

    transformer: Service
    receiver: Receiver
    record: dict[str, object]

    def spans(self, trace: str) -> list[Span]:
        """The spans of a trace, once there are four."""
        self.transformer.wait_for(lambda: len(self.receiver.of_trace(trace)) == 4, f"four spans of {trace}")
        found = self.receiver.of_trace(trace)
        return [found[name] for name in NAMES]


@pytest.fixture(scope="module")
def traced(bundle: Path, logs: Path) -> Generator[Traced]:
    with receiving() as receiver:
        options = [f"--model_dir={bundle}", f"--tracing_endpoint={receiver.url}", "--log_format=json"]
        log = logs / "traced_predictor.log"
        predictor = start("tabserve_predictor", *options, log=log, environment=SOON)
        host = f"--predictor_host=127.0.0.1:{predictor.http_port}"
        log = logs / "traced_transformer.log"
        transformer = start("tabserve_transformer", *options, host, "--tracing_ratio=0", log=log, environment=SOON)
        try:
            transformer.wait_ready()
            yield Traced(transformer, receiver, expected.record(load(bundle), 0))
        finally:
            transformer.kill()
            predictor.kill()


def over_rest(traced: Traced, traceparent: str) -> None:
    connection = HTTPConnection("127.0.0.1", traced.transformer.http_port, timeout=30)
    body = json.dumps({"instances": [traced.record]})
    connection.request("POST", "/v1/models/breast-cancer:predict", body, {"traceparent": traceparent})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    connection.close()


def over_grpc(traced: Traced, traceparent: str) -> None:
    inputs = [
        pb.ModelInferRequest.InferInputTensor(
            name=name, datatype="FP64", shape=[1], contents=pb.InferTensorContents(fp64_contents=[float(str(value))])
        )
        for name, value in traced.record.items()
    ]
    request = pb.ModelInferRequest(model_name="breast-cancer", inputs=inputs)
    with grpc.insecure_channel(traced.transformer.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        call(request.SerializeToString(), metadata=[("traceparent", traceparent)], timeout=30)


@pytest.mark.parametrize("ask", [over_rest, over_grpc])
def test_a_request_is_one_trace_of_four_spans(traced: Traced, ask: Callable[[Traced, str], None]) -> None:
    trace = f"4bf92f3577b34da6a3ce929d0e0e{0x4736 + (ask is over_grpc):x}"
    ask(traced, f"00-{trace}-{CALLER}-01")
    transformer, predictor, queue, engine = traced.spans(trace)

    assert [span.parent for span in (transformer, predictor, queue, engine)] == [
        CALLER,
        transformer.id,
        predictor.id,
        predictor.id,
    ]
    assert [span.service for span in (transformer, predictor, queue, engine)] == [
        "tabserve-transformer",
        "tabserve-transformer",
        "tabserve-predictor",
        "tabserve-predictor",
    ]
    assert transformer.begin <= predictor.begin <= predictor.end <= transformer.end
    assert queue.begin <= queue.end == engine.begin < engine.end
    assert transformer.attributes == {"tabserve.model": "breast-cancer", "tabserve.arm": "split"}
    assert [predictor.attributes, queue.attributes] == [{}, {}]
    assert set(engine.attributes) == {"tabserve.engine"}


def test_a_trace_that_is_not_recorded_has_no_spans(traced: Traced) -> None:
    over_rest(traced, f"00-{'a' * 32}-{CALLER}-00")
    over_rest(traced, f"00-{'b' * 32}-{CALLER}-01")
    traced.spans("b" * 32)

    assert traced.receiver.of_trace("a" * 32) == {}


def settings(url: str, **more: str) -> ServerSettings:
    return read(ServerSettings, {"tracing_endpoint": url, **more}, {})


async def test_without_a_caller_s_trace_one_begins_and_a_failure_of_ours_is_marked() -> None:
    async def fail(ours: Context) -> None:
        assert int(ours.trace["traceparent"][-2:], 16) & 1  # recorded
        raise PredictorUnavailable("the secret is not told")

    async def refuse(_: Context) -> None:
        raise InvalidRequest("the secret is not told")

    with receiving() as receiver:
        with tracing(settings(receiver.url), "transformer") as spans:
            assert spans is not None
            for work in (fail, refuse):
                with pytest.raises(InferenceError):
                    await spans.around("transformer", {}, Context(), work)
        ours, theirs = receiver.spans

    assert (ours.parent, ours.failed, ours.attributes) == ("", True, {"error.type": "PredictorUnavailable"})
    assert (theirs.parent, theirs.failed, theirs.attributes) == ("", False, {"error.type": "InvalidRequest"})
    assert "secret" not in str([ours, theirs])


async def test_a_collector_that_is_away_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async def work(_: Context) -> str:
        return "answer"

    url = f"http://127.0.0.1:{free_port()}/v1/traces"
    with tracing(settings(url), "transformer") as spans:
        assert spans is not None
        assert await spans.around("transformer", {}, Context(), work) == "answer"

    assert [record.getMessage() for record in caplog.records] == [f"1 spans could not be sent to {url}"]


def test_nothing_is_imported_while_tracing_is_off() -> None:
    loaded = loaded_by("import tabserve_predictor.__main__, tabserve_transformer.__main__")

    assert "opentelemetry" not in loaded


@pytest.mark.parametrize("url", ["collector:4318", "http://collector:4318", "http://a b/v1/traces"])
def test_a_url_without_a_path_is_refused(url: str) -> None:
    with pytest.raises(click.UsageError, match="tracing_endpoint: expected a URL such as"):
        settings(url)
