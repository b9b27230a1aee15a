"""The admin port answers health, readiness and metrics even if the service's event loop is blocked."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tabserve.inference.admin import MOST_CLIENTS, MOST_HEAD_BYTES, STALLED_SECONDS, Heartbeat
from tabserve.inference.rest.pages import health_pages
from tabserve.inference.tensors import ModelMetadata
from tests.faults import wire
from tests.faults.conftest import Subject
from tests.serving import Service, running, start

pytestmark = pytest.mark.alone

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"


def admin(service: Service, path: str) -> int:
    """The status of a page on the admin port."""
    return service.get(path, service.admin_port)[0]


@contextmanager
def stalled(service: Service, folder: Path) -> Generator[None]:
    """Block the service's event loop while the block runs; then the request that blocked it is answered."""
    pipe, subject = folder / "pipe", Subject(service)
    os.mkfifo(pipe)
    content = subject.payload.json(parameters={"stall": str(pipe)})
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(subject.target.infer, content)
        ends: list[int] = []
        service.wait_for(lambda: opened(pipe, ends), "held up")
        yield
        os.close(ends[0])
        assert asked.result(60).status == 200


def opened(pipe: Path, ends: list[int]) -> bool:
    """Whether the model reads from the pipe, which opens the other end."""
    with suppress(OSError):
        ends.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    return bool(ends)


def test_health_of_server_model_and_versions_is_on_both_ports(subject: Subject) -> None:
    model = subject.target.model
    (version,) = subject.target.metadata["versions"]
    paths = ["/v2/health/live", "/v2/health/ready", f"/v2/models/{model}/ready", f"/v1/models/{model}"]
    paths.append(f"/v2/models/{model}/versions/{version}/ready")

    for path in paths:
        ours, theirs = subject.service.get(path), subject.service.get(path, subject.service.admin_port)
        assert ours == theirs
        assert ours[0] == 200


def test_metrics_are_on_the_admin_port_alone(subject: Subject) -> None:
    assert subject.service.status("/metrics") == 404
    assert "tabserve_requests_total" in subject.service.metrics()


def test_without_an_admin_port_metrics_are_on_the_service_s(logs: Path) -> None:
    with running("tests.echo", "--admin_port=0", log=logs / "without_admin.log") as service:
        assert b"echo_started" in service.get("/metrics")[1]
        assert admin(service, "/v2/health/live") == 0


def test_there_is_nothing_else_on_the_admin_port(subject: Subject) -> None:
    port, path = subject.service.admin_port, f"{subject.target.path}/infer"

    assert [admin(subject.service, one) for one in ("/", "/v2", subject.target.path, path)] == [404] * 4
    assert wire.ask(port, wire.post(path, "Content-Length: 2", body=b"{}")) == [404]
    assert wire.ask(port, wire.post("/v2/health/live", "Content-Length: 2", body=b"{}")) == [405]


def test_a_head_has_no_body_and_the_connection_ends_with_the_answer(subject: Subject) -> None:
    port = subject.service.admin_port

    assert wire.exchange(port, LIVE.replace(b"GET", b"HEAD")).endswith(b"\r\n\r\n")
    assert wire.statuses(wire.exchange(port, LIVE * 3)) == [200]


def test_a_request_that_comes_in_pieces_is_answered(subject: Subject) -> None:
    with wire.connection(subject.service.admin_port) as opened:
        for at in range(len(LIVE)):
            wire.send(opened, LIVE[at : at + 1])
        assert [answer.status for answer in wire.answers(opened)] == [200]


def test_health_and_metrics_are_answered_while_the_event_loop_is_held_up(echo: Service, tmp_path: Path) -> None:
    started = echo.metric("echo_started")
    with stalled(echo, tmp_path):
        assert admin(echo, "/v2/health/live") == 200
        assert admin(echo, "/v2/health/ready") == 200
        assert echo.metric("echo_started") == started + 1


@pytest.mark.long
def test_a_server_whose_event_loop_stands_still_is_not_live_until_it_turns_again(logs: Path, tmp_path: Path) -> None:
    with running("tests.echo", log=logs / "stalled.log") as service:
        with stalled(service, tmp_path):
            service.wait_for(lambda: admin(service, "/v2/health/live") == 503, "not live", seconds=STALLED_SECONDS + 10)
        service.wait_for(lambda: admin(service, "/v2/health/live") == 200, "live again")


def test_what_has_not_turned_for_half_a_minute_is_not_live() -> None:
    now = 0.0
    heart = Heartbeat(lambda: now)
    metadata = ModelMetadata("m", ("1",), "", inputs=(), outputs=())
    live = health_pages(metadata, lambda: True, is_live=lambda: heart.live)[b"/v2/health/live"]

    now = STALLED_SECONDS - 1
    assert live().status == 200
    now = STALLED_SECONDS
    assert live().status == 503
    heart.beat()
    assert live().status == 200


def test_during_the_drain_it_is_live_and_not_ready(logs: Path) -> None:
    with running("tests.echo", log=logs / "administered.log") as service, ThreadPoolExecutor(1) as pool:
        subject = Subject(service)
        held = pool.submit(subject.target.infer, subject.payload.json(parameters={"hold": True}))
        service.wait_metric("echo_held", 1)
        service.process.terminate()
        service.wait_for(lambda: admin(service, "/v2/health/ready") == 503, "not ready")
        assert admin(service, "/v2/health/live") == 200
        service.signal(signal.SIGUSR1)
        assert held.result(60).status == 200
        assert service.process.wait(60) == 0


def test_clients_that_ask_for_nothing_keep_nobody_out(subject: Subject) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(wire.connection(subject.service.admin_port)) for _ in range(MOST_CLIENTS + 1)]
        assert admin(subject.service, "/v2/health/live") == 200
        assert wire.rest(silent[0]) == b""


def test_a_client_that_takes_too_long_is_let_go(subject: Subject) -> None:
    with wire.connection(subject.service.admin_port) as opened:
        wire.send(opened, LIVE[:-1])
        assert wire.rest(opened) == b""


def test_headers_without_an_end_are_refused(subject: Subject) -> None:
    request = LIVE[:-2] + b"A: " + b"a" * MOST_HEAD_BYTES

    assert wire.statuses(wire.exchange(subject.service.admin_port, request)) == [431]


def test_a_taken_admin_port_ends_the_start(echo: Service, tmp_path: Path) -> None:
    service = start("tests.echo", f"--admin_port={echo.admin_port}", log=tmp_path / "log")
    try:
        assert service.process.wait(60) != 0
        assert "in use" in service.text()
    finally:
        service.kill()
