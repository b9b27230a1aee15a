"""More requests than places, deadlines that pass and clients that go away (fault catalogue 23, 24, 26 and 27)."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from tabserve import bundle as bundles
from tabserve.inference.deadlines import deadline
from tabserve.inference.grpc import open_inference_pb2 as pb
from tests.contract.target import Answer
from tests.faults import wire
from tests.faults.conftest import Subject
from tests.serving import running

pytestmark = pytest.mark.alone

PLACES = 2
HELD = pb.InferParameter(bool_param=True)


@pytest.fixture(scope="module")
def small(logs: Path) -> Generator[Subject]:
    """An echo with two places for requests."""
    with running("tests.echo", f"--max_concurrency={PLACES}", log=logs / "small.log") as service:
        yield Subject(service)


def asking(subject: Subject, **parameters: bool) -> dict[str, Any]:
    """A JSON request for an echo, with parameters."""
    return subject.payload.rows(1).json(parameters=parameters)


def let_go(subject: Subject) -> None:
    """Let an echo answer the requests that it holds."""
    subject.service.signal(signal.SIGUSR1)


def request_bytes(subject: Subject, **parameters: bool) -> bytes:
    """A whole request for an echo, in its wire form."""
    body = json.dumps(asking(subject, **parameters)).encode()
    return wire.post("/v2/models/echo/infer", f"Content-Length: {len(body)}", body=body)


@contextmanager
def full(subject: Subject) -> Generator[None]:
    """Take every place until the echo is released; at the end all those requests have their answers."""
    with ThreadPoolExecutor(PLACES) as pool:
        held: list[Future[Answer]] = [
            pool.submit(subject.target.infer, asking(subject, hold=True)) for _ in range(PLACES)
        ]
        subject.service.wait_metric("echo_held", PLACES)
        yield
        let_go(subject)
        assert [one.result(60).status for one in held] == [200] * PLACES


def waits(subject: Subject, opened: socket.socket) -> None:
    """Send a request that is left unread."""
    wire.send(opened, request_bytes(subject))
    subject.service.wait_metric("tabserve_requests_waiting", 1)


def assert_unavailable(subject: Subject, message: pb.ModelInferRequest) -> None:
    """Assert that gRPC says UNAVAILABLE, and when to try again."""
    with pytest.raises(grpc.RpcError) as failure:
        subject.target.call("ModelInfer", message)
    assert failure.value.code() == grpc.StatusCode.UNAVAILABLE
    assert int(dict(failure.value.trailing_metadata())["retry-after"]) >= 1


def test_grpc_requests_are_unavailable_at_once_and_health_is_answered(small: Subject) -> None:
    with full(small), wire.connection(small.service.http_port) as opened:
        waits(small, opened)
        assert_unavailable(small, small.payload.message("echo"))
        assert [small.service.status(f"/v2/health/{name}") for name in ("live", "ready")] == [200, 200]
        assert small.target.call("ServerReady").ready
    assert small.target.infer(asking(small)).status == 200


def test_a_request_is_refused_before_its_body_is_there_and_its_connection_goes_on(small: Subject) -> None:
    request = request_bytes(small)
    counter = 'tabserve_requests_rejected_total{protocol="rest"}'
    with wire.connection(small.service.http_port) as opened:
        with full(small):
            wire.send(opened, request[:-10])
            (early,) = wire.answers(opened)
            refused = small.service.metric(counter)
            wire.send(opened, request[-10:] + request)
            (again,) = wire.answers(opened)
        wire.send(opened, request)
        (served,) = wire.answers(opened)

    early.assert_error(503, 503)
    assert [early.status, again.status, served.status] == [503, 503, 200]
    assert small.service.metric(counter) == refused + 1


def test_past_the_places_requests_wait_unread_and_get_the_next_place(small: Subject) -> None:
    with wire.connection(small.service.http_port) as opened:
        with full(small):
            waits(small, opened)
            assert small.service.status("/v2/health/ready") == 200
        (answer,) = wire.answers(opened)
    assert answer.status == 200
    assert small.service.metric("tabserve_requests_waiting") == 0


def test_a_request_that_waits_too_long_is_refused(small: Subject) -> None:
    with wire.connection(small.service.http_port) as opened, full(small):
        waits(small, opened)
        (answer,) = wire.answers(opened)
        answer.assert_error(503, 503)
        assert int(answer.headers["Retry-After"]) >= 1
        assert small.service.metric("tabserve_requests_waiting") == 0


def test_a_request_whose_client_goes_away_while_it_waits_is_forgotten(small: Subject) -> None:
    with full(small):
        started = small.service.metric("echo_started")
        with wire.connection(small.service.http_port) as opened:
            waits(small, opened)
        small.service.wait_metric("tabserve_requests_waiting", 0)
        assert small.service.metric("echo_started") == started
    small.assert_serves()


def test_a_waiting_request_is_answered_before_the_server_stops(logs: Path) -> None:
    with running("tests.echo", f"--max_concurrency={PLACES}", log=logs / "stopping.log") as service:
        stopping = Subject(service)
        with wire.connection(service.http_port) as opened:
            with full(stopping):
                waits(stopping, opened)
                service.signal(signal.SIGTERM)
            (answer,) = wire.answers(opened)
        assert answer.status in {200, 503}


def test_a_deadline_counts_from_when_the_request_came() -> None:
    before = time.monotonic()
    assert before + 0.5 <= deadline(b"1500", waited=1.0) <= time.monotonic() + 0.5


def test_a_client_that_goes_away_over_rest_gives_its_place_back(small: Subject) -> None:
    given_up = small.service.metric("echo_abandoned")
    with wire.connection(small.service.http_port) as opened:
        wire.send(opened, request_bytes(small, hold=True))
        small.service.wait_metric("echo_held", 1)
    small.service.wait_metric("echo_held", 0)
    small.service.wait_metric("tabserve_requests_in_flight", 0)
    assert small.service.metric("echo_abandoned") == given_up + 1
    small.assert_no_stack_trace()


@contextmanager
def lone_client(subject: Subject, log: Path) -> Generator[tuple[Subject, socket.socket]]:
    """A separate echo, and a connection whose next request starts at once, because only it has had an answer."""
    with running("tests.echo", log=log) as service, wire.connection(service.http_port) as opened:
        lonely = Subject(service)
        wire.send(opened, request_bytes(subject))
        assert wire.answers(opened)[0].status == 200
        yield lonely, opened


def test_a_lone_client_s_request_that_waits_is_answered(small: Subject, logs: Path) -> None:
    with lone_client(small, logs / "lone_waits.log") as (lonely, opened):
        for _ in range(2):
            wire.send(opened, request_bytes(small, hold=True))
            lonely.service.wait_metric("echo_held", 1)
            let_go(lonely)
            assert wire.answers(opened)[0].status == 200
        wire.send(opened, request_bytes(small) * 3)
        assert [answer.status for answer in wire.answers(opened, 3)] == [200] * 3


def test_a_lone_client_that_goes_away_gives_its_place_back(small: Subject, logs: Path) -> None:
    with lone_client(small, logs / "lone_goes.log") as (lonely, opened):
        wire.send(opened, request_bytes(small, hold=True))
        lonely.service.wait_metric("echo_held", 1)
        opened.close()
        lonely.service.wait_metric("echo_abandoned", 1)
        lonely.service.wait_metric("tabserve_requests_in_flight", 0)
        lonely.assert_no_stack_trace()


def test_a_lone_client_s_deadline_is_kept(small: Subject, logs: Path) -> None:
    with lone_client(small, logs / "lone_late.log") as (lonely, opened):
        body = json.dumps(asking(small, hold=True)).encode()
        path = "/v2/models/echo/infer"
        wire.send(opened, wire.post(path, f"Content-Length: {len(body)}", "x-request-timeout-ms: 100", body=body))
        wire.answers(opened)[0].assert_error(504, 504)
        lonely.service.wait_metric("echo_held", 0)
        wire.send(opened, request_bytes(small))
        assert wire.answers(opened)[0].status == 200


def test_a_client_that_cancels_over_grpc_gives_its_place_back(small: Subject) -> None:
    given_up = small.service.metric("echo_abandoned")
    message = small.payload.message("echo", parameters={"hold": HELD})
    with grpc.insecure_channel(small.service.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer").future(message.SerializeToString())
        small.service.wait_metric("echo_held", 1)
        call.cancel()
    small.service.wait_metric("echo_held", 0)
    small.service.wait_metric("tabserve_requests_in_flight", 0)
    assert small.service.metric("echo_abandoned") == given_up + 1
    small.assert_no_stack_trace()


def test_many_clients_that_go_away_leave_every_place_free(small: Subject) -> None:
    request = request_bytes(small)
    for cut in range(1, len(request), len(request) // 200):
        with wire.connection(small.service.http_port) as opened:
            wire.send(opened, request[:cut])
    small.service.wait_metric("tabserve_requests_in_flight", 0)
    small.assert_serves()


def test_a_deadline_that_passes_is_504_and_gives_its_place_back(small: Subject) -> None:
    given_up = small.service.metric("echo_abandoned")
    headers = {"Content-Type": "application/json", "x-request-timeout-ms": "300"}
    held = json.dumps(asking(small, hold=True))
    small.target.http("POST", "/v2/models/echo/infer", held, headers).assert_error(504, 504)
    message = small.payload.message("echo", parameters={"hold": HELD})
    with grpc.insecure_channel(small.service.grpc) as channel, pytest.raises(grpc.RpcError) as failure:
        channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(message.SerializeToString(), timeout=0.3)
    assert failure.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    small.service.wait_metric("echo_held", 0)
    small.service.wait_metric("tabserve_requests_in_flight", 0)
    assert small.service.metric("echo_abandoned") >= given_up + 1


@pytest.mark.parametrize("path", ["/v2/models/{}/infer", "/v1/models/{}:predict"])
def test_a_deadline_that_has_passed_is_504_without_work(small: Subject, path: str) -> None:
    started = small.service.metric("echo_started")
    body = json.dumps(asking(small))
    answer = small.target.http("POST", path.format("echo"), body, {"x-request-timeout-ms": "0"})
    answer.assert_error(504, 504)
    assert small.service.metric("echo_started") == started


@pytest.mark.parametrize("timeout", ["-1", "soon", "", "1.5", "1e3", "9" * 30])
def test_a_deadline_that_is_none_is_refused(subject: Subject, timeout: str) -> None:
    body = json.dumps(subject.payload.json())
    headers = {"Content-Type": "application/json", "x-request-timeout-ms": timeout}
    error = subject.target.http("POST", f"{subject.target.path}/infer", body, headers).assert_error(400, 400)
    assert "x-request-timeout-ms" in error


def test_a_deadline_far_away_is_kept(subject: Subject) -> None:
    body = json.dumps(subject.payload.json())
    headers = {"Content-Type": "application/json", "x-request-timeout-ms": "60000"}
    assert subject.target.http("POST", f"{subject.target.path}/infer", body, headers).status == 200


def test_the_predictor_s_503_comes_through_the_transformer(quick_bundle: Path, logs: Path) -> None:
    release = f"--release={bundles.load(quick_bundle).digest}"
    full_one = ("--model_name=quick", release, f"--max_concurrency={PLACES}")
    with running("tests.echo", *full_one, log=logs / "full_predictor.log") as predictor:
        options = (f"--model_dir={quick_bundle}", f"--predictor_host=127.0.0.1:{predictor.http_port}")
        with running("tabserve_transformer", *options, log=logs / "full_transformer.log") as transformer:
            behind = Subject(transformer)
            with full(Subject(predictor)):
                refused = behind.target.infer(behind.payload.json())
            refused.assert_error(503, 503)
            assert refused.json()["error"] == "too many requests at once"
            assert int(refused.headers["Retry-After"]) >= 1
            assert behind.service.metric("tabserve_requests_in_flight") == 0
