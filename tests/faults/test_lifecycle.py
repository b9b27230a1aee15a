"""Services that stop, are killed and come back under load (fault catalogue 38, and worse)."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import grpc
import pytest

from tabserve.inference.grpc import open_inference_pb2 as pb
from tests.faults import wire
from tests.faults.conftest import Subject
from tests.faults.load import Tally, ask_grpc, ask_rest, clients
from tests.serving import Service, running, start

pytestmark = pytest.mark.alone

MANY = 200


def answered_more(service: Service, tally: Tally, count: int = MANY) -> None:
    """Wait until `count` more requests have had a right answer."""
    goal = tally.answered + count
    service.wait_for(lambda: tally.answered >= goal, f"asked {count} times more, {dict(tally.counts)}")


@pytest.mark.parametrize("kind", ["predictor", "transformer"])
def test_sigterm_under_load_fails_no_request(
    quick_bundle: Path, quick_predictor: Service, logs: Path, kind: str
) -> None:
    options = [f"--model_dir={quick_bundle}", "--drain_seconds=5"]
    options += [f"--predictor_host=127.0.0.1:{quick_predictor.http_port}"] if kind == "transformer" else []
    with ExitStack() as stack:
        going, staying = (
            stack.enter_context(running(f"tabserve_{kind}", *options, log=logs / f"{name}_{kind}.log"))
            for name in ("going", "staying")
        )
        subject, tally = Subject(staying), Tally()
        rest = partial(ask_rest, tally, [going.http_port, staying.http_port], f"{subject.target.path}/infer")
        rpc = partial(ask_grpc, tally, [going.grpc_port, staying.grpc_port], subject.target.model)
        with clients(tally, *[partial(ask, subject.payload) for ask in (rest, rest, rpc, rpc)]):
            answered_more(going, tally)
            assert going.terminate() == 0
            answered_more(staying, tally)
        assert tally.counts.keys() == {"200", "OK"}, tally.counts
        assert "Traceback" not in going.text()


def test_sigterm_waits_for_what_is_under_way(logs: Path) -> None:
    with running("tests.echo", log=logs / "draining.log") as service, ThreadPoolExecutor(2) as pool:
        subject = Subject(service)
        held = pool.submit(subject.target.infer, subject.payload.json(parameters={"hold": True}))
        message = subject.payload.message("echo", parameters={"hold": pb.InferParameter(bool_param=True)})
        held_rpc = pool.submit(subject.target.call, "ModelInfer", message)
        service.wait_metric("echo_held", 2)
        service.process.terminate()
        service.wait_for(lambda: "draining" in service.text(), "draining")
        service.signal(signal.SIGUSR1)
        assert held.result(60).status == 200
        assert held_rpc.result(60).outputs
        assert service.process.wait(60) == 0


def test_during_the_drain_open_connections_are_answered_and_readiness_is_off(logs: Path) -> None:
    with running("tests.echo", log=logs / "drained.log") as service:
        subject = Subject(service)
        body = json.dumps(subject.payload.json()).encode()
        infer = wire.post("/v2/models/echo/infer", f"Content-Length: {len(body)}", body=body)
        ready = b"GET /v2/health/ready HTTP/1.1\r\nHost: a\r\n\r\n"
        with ExitStack() as stack:
            opened = [stack.enter_context(wire.connection(service.http_port)) for _ in range(2)]
            for connection in opened:
                wire.send(connection, infer)
                assert wire.answers(connection)[0].status == 200
            service.process.terminate()
            service.wait_for(lambda: "draining" in service.text(), "draining")
            for connection, request, status in zip(opened, (infer, ready), (200, 503), strict=True):
                wire.send(connection, request)
                (answer,) = wire.answers(connection)
                assert answer.status == status
                assert answer.headers["Connection"] == "close"
        assert service.process.wait(60) == 0


def test_a_client_that_had_just_connected_is_answered_when_the_server_stops(logs: Path) -> None:
    request = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    with running("tests.echo", "--drain_seconds=0", log=logs / "connected.log") as service:
        with wire.connection(service.http_port) as connected:
            assert wire.ask(service.http_port, request) == [200]  # the one before it is accepted as well
            service.process.terminate()
            service.wait_for(lambda: not listens(service.http_port), "closed to new clients")
            wire.send(connected, request)
            assert [answer.headers["Connection"] for answer in wire.answers(connected)] == ["close"]
        assert service.process.wait(60) == 0


def listens(port: int) -> bool:
    """Whether a client can connect."""
    try:
        with wire.connection(port):
            return True
    except ConnectionRefusedError:
        return False


def test_sigint_ends_it_too(logs: Path) -> None:
    with running("tests.echo", log=logs / "interrupted.log") as service:
        service.signal(signal.SIGINT)
        assert service.process.wait(60) == 0
        assert "Traceback" not in service.text()


def test_a_killed_predictor_is_503_until_it_is_back(quick_bundle: Path, logs: Path) -> None:
    model = f"--model_dir={quick_bundle}"
    with ExitStack() as stack:
        log = logs / "killed_predictor.log"
        first = stack.enter_context(running("tabserve_predictor", model, log=log))
        options = (model, f"--predictor_host=127.0.0.1:{first.http_port}", "--predictor_timeout=5")
        transformer = stack.enter_context(
            running("tabserve_transformer", *options, log=logs / "bereft_transformer.log")
        )
        subject, tally = Subject(transformer), Tally()
        path = f"{subject.target.path}/infer"
        ask = partial(ask_rest, tally, [transformer.http_port], path, subject.payload)
        rpc = partial(ask_grpc, tally, [transformer.grpc_port], subject.target.model, subject.payload)
        with clients(tally, ask, ask, rpc):
            answered_more(transformer, tally)
            first.kill()
            transformer.wait_for(lambda: tally.counts["503"] >= MANY, "refused")
            second = start("tabserve_predictor", model, log=log, http_port=first.http_port, grpc_port=first.grpc_port)
            stack.callback(second.kill)
            second.wait_ready()
            answered_more(transformer, tally)
        assert_refused_well(tally)
        assert transformer.process.poll() is None
        subject.assert_serves()


def assert_refused_well(tally: Tally) -> None:
    """Assert that answers were right or 503 with Retry-After (gRPC: OK or UNAVAILABLE), and none past the deadline."""
    others = [outcome for outcome in tally.counts if outcome not in ("200", "503", "OK")]
    assert all(outcome.startswith(grpc.StatusCode.UNAVAILABLE.name) for outcome in others), tally.counts
    assert tally.without_retry_after == 0
    assert tally.slowest < 5 + 5


def test_a_transformer_without_a_predictor_is_live_and_not_ready(quick_bundle: Path, logs: Path) -> None:
    options = (f"--model_dir={quick_bundle}", "--predictor_host=127.0.0.1:9")
    service = start("tabserve_transformer", *options, log=logs / "lonely_transformer.log")
    try:
        service.wait_live()
        subject = Subject(service)
        assert service.status("/v2/health/ready") == 503
        assert service.status(f"{subject.target.path}/ready") == 503
        assert not subject.target.call("ServerReady").ready
        answer = subject.target.infer(subject.payload.json())
        answer.assert_error(503, 503)
        assert int(answer.headers["Retry-After"]) >= 1
        message = subject.payload.message(subject.target.model)
        assert subject.target.refusal("ModelInfer", message) == grpc.StatusCode.UNAVAILABLE
    finally:
        service.kill()


def test_a_predictor_of_another_release_is_not_used(quick_bundle: Path, quick_predictor: Service, logs: Path) -> None:
    host = f"--predictor_host=127.0.0.1:{quick_predictor.http_port}"
    options = (f"--model_dir={quick_bundle}", host, "--release=another")
    service = start("tabserve_transformer", *options, log=logs / "estranged_transformer.log")
    try:
        service.wait_for(lambda: "another release" in service.text(), "estranged")
        subject = Subject(service)
        assert service.status("/v2/health/ready") == 503
        answer = subject.target.infer(subject.payload.json())
        assert "release" in answer.assert_error(503, 503)
    finally:
        service.kill()
