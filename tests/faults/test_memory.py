"""Floods of large or incomplete requests: memory stays within a limit, and other clients are answered.

The service is an echo with little memory in its settings. `long`: the same at sizes that would end a pod of the chart.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest

from tests.faults import wire
from tests.faults.conftest import Subject
from tests.serving import Service, running

pytestmark = pytest.mark.alone

MIB = 2**20
LIMIT = 160 * MIB
"""The memory in the settings, of which an echo takes about 60 MiB."""
FLOODED, SLACK = 96 * MIB, 64 * MIB
"""How much more memory than at its start a service may take, during and after a flood."""
PATH = "/v2/models/echo/infer"
INFER = "/inference.GRPCInferenceService/ModelInfer"
OWN = [("grpc.use_local_subchannel_pool", 1)]  # without it, all channels share one connection


@pytest.fixture(scope="module")
def tight(logs: Path) -> Generator[Subject]:
    """An echo with little memory in its settings."""
    options = (f"--memory_limit_bytes={LIMIT}", "--max_rows=20000")
    with running("tests.echo", *options, log=logs / "tight.log") as service:
        yield Subject(service)


@contextmanager
def bounded(subject: Subject) -> Generator[None]:
    """Assert that in and after the block the service takes little more memory than before, and answers others.

    After the block it gives freed memory back once it is idle.
    """
    service = subject.service
    subject.assert_serves()
    before = service.resident_bytes()
    yield
    subject.assert_serves()
    assert service.resident_bytes() - before < FLOODED
    service.wait_metric("tabserve_transit_bytes", 0)
    service.wait_for(lambda: service.resident_bytes() - before < SLACK, "small again", seconds=30)
    subject.assert_serves()


def test_the_memory_that_it_may_have_is_shown(tight: Subject) -> None:
    assert tight.service.metric("tabserve_memory_limit_bytes") == LIMIT


def large(subject: Subject, rows: int = 20_000) -> bytes:
    """A whole request with several megabytes."""
    body, headers = subject.payload.rows(rows).binary()
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return wire.post(PATH, *lines, f"Content-Length: {len(body)}", body=body)


def unfinished(size: int) -> bytes:
    """A request without the last byte of its body."""
    return wire.post(PATH, f"Content-Length: {size + 1}", body=b" " * size)


def chunks(size: int) -> bytes:
    """A request of two-byte chunks that never ends."""
    return wire.post(PATH, "Transfer-Encoding: chunked", body=b"2\r\n  \r\n" * (size // 2))


def send_on(subject: Subject, count: int, data: bytes, stack: ExitStack) -> None:
    """Send this on `count` connections at once, which stay open."""
    opened = [stack.enter_context(wire.connection(subject.service.http_port)) for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda connection: wire.send(connection, data), opened))


FLOODS = {
    "bodies that are not whole": unfinished(3 * MIB),
    "chunks of two bytes": chunks(3 * MIB),
    "headers that do not end": b"POST / HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * 60_000,
}


@pytest.mark.parametrize("flood", FLOODS)
def test_requests_that_are_never_whole_take_bounded_memory(tight: Subject, flood: str) -> None:
    with bounded(tight), ExitStack() as stack:
        send_on(tight, 40, FLOODS[flood], stack)
        tight.assert_serves()
        assert 200 in wire.ask(tight.service.http_port, large(tight))


def test_large_requests_wait_for_memory_and_get_it(tight: Subject) -> None:
    request = large(tight)
    statuses: list[list[int]] = []

    def ask() -> None:
        statuses.append(wire.ask(tight.service.http_port, request))

    with bounded(tight):
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {status for (status,) in statuses} <= {200, 503}
    assert [200] in statuses


def test_a_request_that_finds_no_memory_is_refused_and_its_connection_goes_on(tight: Subject) -> None:
    port, request = tight.service.http_port, large(tight)
    with ExitStack() as stack, wire.connection(port) as opened:
        wire.send(opened, request[:-1])
        send_on(tight, 8, unfinished(8 * MIB - 1), stack)
        (refused,) = wire.answers(opened)
        wire.send(opened, request[-1:] + b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        (live,) = wire.answers(opened)
    refused.assert_error(503, 503)
    assert int(refused.headers["Retry-After"]) >= 1
    assert live.status == 200


def test_a_client_that_waits_to_be_told_to_go_on_is_told_when_there_is_memory(tight: Subject) -> None:
    size = 8 * MIB - 1000
    with wire.connection(tight.service.http_port) as slow, wire.connection(tight.service.http_port) as opened:
        wire.send(slow, unfinished(size)[:-MIB])
        tight.service.wait_for(lambda: tight.service.metric("tabserve_transit_bytes") > 0, "granted")
        wire.send(opened, wire.post(PATH, f"Content-Length: {size}", "Expect: 100-continue"))
        assert opened.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert wire.answers(slow)[0].status == 503
        wire.send(opened, b" " * size)
        wire.answers(opened)[0].assert_error(400, 400)


def test_answers_that_are_not_read_take_bounded_memory(tight: Subject) -> None:
    request = large(tight)
    with bounded(tight), ExitStack() as stack:
        send_on(tight, 20, request, stack)
        tight.assert_serves()


def message(size: int) -> bytes:
    """A message of `size` bytes that names a tensor of the wrong length."""
    raw = struct.pack("<I", size)[:1] * size
    return b"\x0a\x04echo\x3a" + _varint(len(raw)) + raw


def _varint(value: int) -> bytes:
    groups = [value >> shift & 0x7F for shift in range(0, 35, 7)]
    return bytes(group | 0x80 for group in groups[:-1]) + bytes(groups[-1:])


def flood(service: Service, count: int, size: int) -> set[grpc.StatusCode]:
    """Make `count` calls with messages of `size` bytes at once, over four connections; returns how they ended."""
    with ExitStack() as stack:
        options = [*OWN, ("grpc.max_send_message_length", -1)]
        channels = [stack.enter_context(grpc.insecure_channel(service.grpc, options)) for _ in range(4)]
        calls = [channels[i % 4].unary_unary(INFER).future(message(size), timeout=60) for i in range(count)]
        return {call.code() for call in calls}


def test_messages_at_once_take_bounded_memory(tight: Subject) -> None:
    with bounded(tight):
        codes = flood(tight.service, 16, 4 * MIB)
    assert codes <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAVAILABLE}


def test_calls_whose_messages_never_come_are_given_up_for_others(tight: Subject) -> None:
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait(60)
        yield from ()

    with bounded(tight), ExitStack() as stack:
        stack.callback(over.set)
        channels = [stack.enter_context(grpc.insecure_channel(tight.service.grpc, OWN)) for _ in range(2)]
        calls = [channel.stream_unary(INFER).future(nothing()) for channel in channels for _ in range(20)]
        tight.service.wait_metric("tabserve_transit_waiting", len(calls) - 1)
        for _ in range(3):
            tight.assert_serves()
        codes = {call.code() for call in calls if call.done()}
    assert codes == {grpc.StatusCode.UNAVAILABLE}


def test_answers_that_are_not_read_over_grpc_take_bounded_memory(tight: Subject) -> None:
    asked = tight.payload.rows(20_000).message("echo").SerializeToString()
    with bounded(tight), ExitStack() as stack:
        channels = [stack.enter_context(grpc.insecure_channel(tight.service.grpc, OWN)) for _ in range(4)]
        calls = [channels[i % 4].unary_stream(INFER)(asked, timeout=60) for i in range(24)]
        tight.assert_serves()
        codes = {call.code() for call in calls if call.done()}
    assert codes <= {grpc.StatusCode.UNAVAILABLE}


def test_memory_is_handed_back_after_a_flood(tight: Subject) -> None:
    service = tight.service
    tight.assert_serves()
    before = service.resident_bytes()
    for _ in range(4):
        flood(service, 8, 7 * MIB)
        with ExitStack() as stack:
            send_on(tight, 4, unfinished(7 * MIB), stack)
    service.wait_for(lambda: service.resident_bytes() - before < SLACK // 2, "handed back", 30)


def test_past_most_connections_the_one_that_is_idle_the_longest_is_closed(logs: Path) -> None:
    ask = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    with running("tests.echo", "--max_connections=8", log=logs / "connections.log") as service, ExitStack() as stack:
        opened = [stack.enter_context(wire.connection(service.http_port)) for _ in range(8)]
        for each in (*opened, opened[0]):
            wire.send(each, ask)
            assert wire.answers(each)[0].status == 200
        for _ in range(4):
            assert service.status("/v2/health/ready") == 200
        assert wire.rest(opened[1]) == b""
        wire.send(opened[0], ask)
        assert wire.answers(opened[0])[0].status == 200
        assert service.text().count("connections: the longest idle ones") == 1


def test_at_the_limit_of_open_files_health_is_answered(logs: Path) -> None:
    command = ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh")
    with running("tests.echo", log=logs / "files.log", within=command) as service, ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(wire.connection(service.http_port))
        assert service.status("/v2/health/live") == 200
        Subject(service).assert_serves()
        assert service.text().count("connections: the longest idle ones") == 1
