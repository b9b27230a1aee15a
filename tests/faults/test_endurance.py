"""Clients that send very much that is small: each is answered or let go, and nothing of it stays."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.faults import wire
from tests.faults.conftest import Subject
from tests.serving import running

pytestmark = pytest.mark.alone

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
PIPELINED, WATCHES, TIMES = 5_000, 200, 1_000


def test_blank_lines_keep_no_connection_open(logs: Path) -> None:
    options = ("--read_timeout=1", "--keep_alive=1")
    with (
        running("tests.echo", *options, log=logs / "blank.log") as service,
        wire.connection(service.http_port) as opened,
    ):
        closed = threading.Event()

        def send_on() -> None:
            while not closed.wait(0.1):
                wire.send(opened, b"\r\n")

        sender = threading.Thread(target=send_on)
        sender.start()
        try:
            assert wire.statuses(wire.rest(opened)) in ([], [408])
        finally:
            closed.set()
            sender.join()


def test_thousands_of_pipelined_requests_are_answered_in_turn(echoing: Subject) -> None:
    service = echoing.service
    with wire.connection(service.http_port) as opened:
        sender = threading.Thread(target=wire.send, args=(opened, (LIVE + LIVE.replace(b"live", b"none")) * PIPELINED))
        sender.start()
        statuses = [answer.status for answer in wire.answers(opened, 2 * PIPELINED)]
        sender.join()
    assert statuses == [200, 404] * PIPELINED
    echoing.assert_serves()


def test_an_output_named_a_thousand_times_is_answered_once(subject: Subject) -> None:
    asked = subject.payload.json()
    name = next(iter(subject.target.infer(asked).outputs()))
    answer = subject.target.infer({**asked, "outputs": [{"name": name}] * TIMES})
    assert [output["name"] for output in answer.json()["outputs"]] == [name]


def test_many_health_watches_leave_nothing(echoing: Subject) -> None:
    process = psutil.Process(echoing.service.process.pid)
    echoing.assert_serves()
    before = process.num_fds()
    with grpc.insecure_channel(echoing.service.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(WATCHES)]
        echoing.assert_serves()
        for watch in watches:
            watch.cancel()
    echoing.service.wait_for(lambda: process.num_fds() <= before, "as before")
    echoing.assert_serves()


@pytest.mark.parametrize("odd", ["names", "methods"])
def test_nothing_of_a_client_becomes_a_metric_s_label(subject: Subject, odd: str) -> None:
    port = subject.service.http_port
    requests = {
        "names": [wire.post(f"/v2/models/odd{at}/infer", "Content-Length: 2", body=b"{}") for at in range(200)],
        "methods": [f"ODD{at} /v2 HTTP/1.1\r\nHost: a\r\n\r\n".encode() for at in range(20)],
    }[odd]
    for request in requests:
        wire.ask(port, request)
    page = subject.service.metrics()
    assert not re.search("odd", page, re.IGNORECASE)
    assert len(re.findall("^tabserve_requests_total", page, re.MULTILINE)) < 100
