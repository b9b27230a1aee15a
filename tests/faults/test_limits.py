"""Requests that are too large, too many or too slow (fault catalogue 12 to 16, 28 and 29), and their memory."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest

from tests.contract.payload import Payload, framed
from tests.faults import wire
from tests.faults.conftest import Subject
from tests.serving import Service, running

pytestmark = pytest.mark.alone

LIMIT = 8 * 2**20
MIB = 2**20
JSON = {"Content-Type": "application/json"}

# How much a process may grow while it is asked the same thing thousands of times.
SLACK = 48 * MIB


def padded(payload: Payload, size: int) -> bytes:
    """A valid JSON request of `size` bytes."""
    content = json.dumps(payload.json()).encode()
    return content + b" " * (size - len(content))


def growth(subject: Subject, ask: Callable[[], None], times: int) -> int:
    """By how many bytes the process grows while it is asked `times` times, after as many times before."""
    for _ in range(times):
        ask()
    before = subject.service.resident_bytes()
    for _ in range(times):
        ask()
    return subject.service.resident_bytes() - before


def limit(subject: Subject) -> int:
    """How many bytes the service says that a body may have; its bundle's records are short, so fewer than at most."""
    request = wire.post(f"{subject.target.path}/infer", f"Content-Length: {2**40}")
    with wire.connection(subject.service.http_port) as opened:
        wire.send(opened, request)
        error = wire.answers(opened)[0].assert_error(413, 413)
    most = int(error.split("at most ")[1].split(" bytes")[0])
    assert most < LIMIT
    return most


def test_a_body_at_the_limit_is_answered_and_one_over_it_is_413(subject: Subject) -> None:
    target, path, most = subject.target, f"{subject.target.path}/infer", limit(subject)
    assert target.http("POST", path, padded(subject.payload, most), JSON).status == 200
    before = subject.service.resident_bytes()
    target.http("POST", path, padded(subject.payload, most + 1), JSON).assert_error(413, 413)
    assert subject.service.resident_bytes() - before < 2 * most


def test_a_body_over_the_limit_is_refused_before_it_is_sent(subject: Subject) -> None:
    for path in (f"{subject.target.path}/infer", f"/v1/models/{subject.target.model}:predict"):
        request = wire.post(path, "Content-Type: application/json", f"Content-Length: {2**40}")
        assert wire.ask(subject.service.http_port, request) == [413]


def test_an_endless_body_is_refused(subject: Subject) -> None:
    before = subject.service.resident_bytes()
    with wire.connection(subject.service.http_port) as opened:
        wire.send(opened, wire.post(f"{subject.target.path}/infer", "Transfer-Encoding: chunked"))
        for _ in range(64):
            wire.send(opened, b"100000\r\n" + b" " * MIB + b"\r\n")
        assert wire.statuses(wire.rest(opened)) in ([413], [])
    assert subject.service.resident_bytes() - before < 4 * LIMIT
    subject.assert_serves()


def test_a_message_over_the_limit_is_resource_exhausted_also_when_compressed(subject: Subject) -> None:
    target = subject.target
    message = subject.payload.message(target.model, id="x" * (LIMIT + 1))
    assert target.refusal("ModelInfer", message) == grpc.StatusCode.RESOURCE_EXHAUSTED
    with grpc.insecure_channel(subject.service.grpc, compression=grpc.Compression.Gzip) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as failure:
            call(message.SerializeToString(), timeout=60)
        assert failure.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    subject.assert_serves()


def test_a_message_at_the_limit_is_answered(subject: Subject) -> None:
    most = limit(subject)
    message = subject.payload.message(subject.target.model)
    message.parameters["x"].string_param = "x" * (most - message.ByteSize() - 100)
    assert most - 100 < message.ByteSize() <= most
    assert subject.target.call("ModelInfer", message).outputs


def test_a_client_that_refuses_the_answer_leaves_no_stack_trace(subject: Subject) -> None:
    message = subject.payload.message(subject.target.model, id="x" * (5 * MIB))
    assert {subject.target.refusal("ModelInfer", message) for _ in range(20)} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    subject.assert_serves()


def test_a_gzip_bomb_is_not_unpacked(subject: Subject) -> None:
    bomb = gzip.compress(bytes(2**27))
    before = subject.service.resident_bytes()
    for _ in range(20):
        answer = subject.target.http("POST", f"{subject.target.path}/infer", bomb, {**JSON, "Content-Encoding": "gzip"})
        answer.assert_error(415, 415)
    assert subject.service.resident_bytes() - before < SLACK


LENGTHS = ["-1", "99999999999999999999", "1e3", "0x10", "", "two", "+10", "1_0", "0"]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_lying_header_of_binary_tensors_is_refused(subject: Subject, length: str) -> None:
    body, headers = subject.payload.binary()
    headers["Inference-Header-Content-Length"] = length
    subject.target.infer_binary(body, headers).assert_error(400, 400)


@pytest.mark.parametrize("change", [-1, 1, 2**31])
def test_a_header_of_binary_tensors_that_is_off_is_refused(subject: Subject, change: int) -> None:
    body, headers = subject.payload.binary()
    headers["Inference-Header-Content-Length"] = str(int(headers["Inference-Header-Content-Length"]) + change)
    subject.target.infer_binary(body, headers).assert_error(400, 400)


SHAPES = [[2**31 - 1, 2**31 - 1], [2**62, 4], [2**63, 2**63], [0, 2**40], [2**31 - 1, 0], [1] * 100]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_huge_shape_costs_nothing(subject: Subject, matrix: Payload, shape: list[int]) -> None:
    content = {"name": "input-0", "datatype": "FP64", "shape": shape}
    subject.target.infer({"inputs": [{**content, "data": []}]}).assert_error(400, 413)
    body, headers = framed({"inputs": [{**content, "parameters": {"binary_data_size": 0}}]})
    subject.target.infer_binary(body, headers).assert_error(400, 413)
    message = matrix.message(subject.target.model, typed=False)
    del message.inputs[0].shape[:]
    message.inputs[0].shape.extend(min(size, 2**62) for size in shape)
    message.raw_input_contents[0] = b""
    refused = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert subject.target.refusal("ModelInfer", message) in refused


def test_rows_over_the_limit_are_refused_over_rest_and_grpc(subject: Subject) -> None:
    over = subject.payload.rows(10_001)
    error = subject.target.infer_binary(*over.binary()).assert_error(413, 413)
    assert "10000" in error
    assert "10001" in error
    message = over.message(subject.target.model, typed=False)
    assert subject.target.refusal("ModelInfer", message) == grpc.StatusCode.RESOURCE_EXHAUSTED
    body, headers = subject.payload.rows(10_000).binary(parameters={"binary_data_output": True})
    assert subject.target.infer_binary(body, headers).status == 200


def test_small_elements_do_not_grow_into_large_memory(subject: Subject, matrix: Payload) -> None:
    rows = LIMIT // 4 // matrix.tensors[0].array.shape[1]
    array = np.zeros((rows, matrix.tensors[0].array.shape[1]), np.int8)
    payload = Payload((replace(matrix.tensors[0], datatype="INT8", array=array),))
    before = subject.service.resident_bytes()
    subject.target.infer(payload.json()).assert_error(413, 413)
    subject.target.infer_binary(*payload.binary()).assert_error(413, 413)
    assert subject.service.resident_bytes() - before < 12 * LIMIT


REPEATED: dict[str, Callable[[Subject], tuple[bytes, dict[str, str]]]] = {
    "malformed": lambda subject: (b'{"inputs": [', JSON),
    "no tensor": lambda subject: (b'{"inputs": [{"name": "' + b"x" * 2000 + b'"}]}', JSON),
    "unknown names": lambda subject: (json.dumps({"inputs": [{"name": "x"}]}).encode(), JSON),
    "a lying header": lambda subject: (b"{}" * 500, {"Inference-Header-Content-Length": "9999"}),
    "a short tensor": lambda subject: (subject.payload.binary()[0][:-1], subject.payload.binary()[1]),
    "an unknown output": lambda subject: (json.dumps(subject.payload.json(outputs=[{"name": "x"}])).encode(), JSON),
    "encoded": lambda subject: (b"x" * 1000, {**JSON, "Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("case", REPEATED)
def test_repeated_bad_requests_do_not_grow_the_process(subject: Subject, case: str) -> None:
    body, headers = REPEATED[case](subject)
    lines = [f"{name}: {value}" for name, value in headers.items()]
    request = wire.post(f"{subject.target.path}/infer", *lines, f"Content-Length: {len(body)}", body=body)

    def ask() -> None:
        assert set(wire.ask(subject.service.http_port, request * 25, 25)) <= {400, 415}

    assert growth(subject, ask, 80) < SLACK
    subject.assert_serves()


def test_repeated_distinct_names_do_not_grow_the_process(subject: Subject) -> None:
    count = 0

    def ask() -> None:
        nonlocal count
        count += 1
        name = f"{count}-{'n' * 2000}"
        requests = wire.post(f"/v2/models/{name}/infer", "Content-Length: 2", body=b"{}")
        requests += f"GET /v2/{name} HTTP/1.1\r\nHost: {name}\r\nX-{name}: 1\r\n\r\n".encode()
        assert set(wire.ask(subject.service.http_port, requests, 2)) == {404}

    assert growth(subject, ask, 1500) < SLACK


def test_repeated_bad_messages_do_not_grow_the_process(subject: Subject) -> None:
    good = subject.payload.message(subject.target.model)
    unknown = subject.payload.message("x" * 1000)
    good.inputs[0].shape.append(3)
    messages = [good.SerializeToString(), unknown.SerializeToString(), b"\xff" * 500]
    with grpc.insecure_channel(subject.service.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        def ask() -> None:
            failures = [call.future(message, timeout=60).exception() for message in messages * 5]
            assert {failure.code() for failure in failures} == {
                grpc.StatusCode.INVALID_ARGUMENT,
                grpc.StatusCode.NOT_FOUND,
            }

        assert growth(subject, ask, 60) < SLACK
    subject.assert_serves()


SLOW = {
    "in its headers": b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: a\r\nX-A: ",
    "in its body": wire.post("/v2/models/echo/infer", "Content-Length: 1000", body=b"{"),
    "in its chunks": wire.post("/v2/models/echo/infer", "Transfer-Encoding: chunked", body=b"5\r\n{"),
    "before its first byte": b"",
}


@pytest.mark.parametrize("case", SLOW)
def test_slow_clients_are_closed_and_hurt_nobody(logs: Path, case: str) -> None:
    options = ("--read_timeout=1.5", "--max_concurrency=8")
    with running("tests.echo", *options, log=logs / "slow.log") as service, ExitStack() as stack:
        subject = Subject(service)
        slow = [stack.enter_context(wire.connection(service.http_port)) for _ in range(40)]
        for opened in slow:
            wire.send(opened, SLOW[case])
        subject.assert_serves()
        assert {tuple(wire.statuses(wire.rest(opened))) for opened in slow} <= {(408,), ()}
        subject.assert_serves()


def test_an_idle_connection_ends_without_an_answer_and_one_in_use_goes_on(logs: Path) -> None:
    request = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    with running("tests.echo", "--keep_alive=1.5", log=logs / "idle.log") as service:
        with wire.connection(service.http_port) as opened:
            for _ in range(3):
                wire.send(opened, request)
                assert [answer.status for answer in wire.answers(opened)] == [200]
            assert wire.rest(opened) == b""
        Subject(service).assert_serves()


def unread(service: Service, request: bytes, stack: ExitStack) -> socket.socket:
    """A client that asks for more data than the sockets hold, and reads nothing."""
    opened = stack.enter_context(socket.socket())
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    opened.connect(("127.0.0.1", service.http_port))
    wire.push(opened, request)
    return opened


def large(subject: Subject) -> bytes:
    """A request whose answer has several megabytes."""
    body, headers = subject.payload.rows(9_000).binary()
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return wire.post("/v2/models/echo/infer", *lines, f"Content-Length: {len(body)}", body=body)


def held(service: Service, opened: socket.socket) -> bool:
    """Whether the service still has its end of a connection."""
    port = opened.getsockname()[1]
    return any(one.raddr and one.raddr.port == port for one in psutil.Process(service.process.pid).connections())


def test_a_client_that_does_not_read_is_given_up(logs: Path) -> None:
    timeout = 2 * wire.STUCK_SECONDS
    with running("tests.echo", f"--write_timeout={timeout}", log=logs / "unread.log") as service, ExitStack() as stack:
        opened = unread(service, large(Subject(service)) * 8, stack)
        assert held(service, opened)
        service.wait_for(lambda: not held(service, opened), "given up")
        Subject(service).assert_serves()


def test_sigterm_waits_for_no_client_that_does_not_read(logs: Path) -> None:
    with running("tests.echo", "--drain_seconds=1", log=logs / "unread_stop.log") as service, ExitStack() as stack:
        request = large(Subject(service)) * 4
        for _ in range(8):
            unread(service, request, stack)
        service.process.terminate()
        assert service.process.wait(20) == 0, "30 s of write_timeout are not waited for"
        assert "whose answer was missing or unread" in service.text()


def test_a_client_that_does_not_read_costs_bounded_memory(echoing: Subject) -> None:
    body, headers = echoing.payload.rows(1000).binary()
    lines = [f"{name}: {value}" for name, value in headers.items()]
    request = wire.post("/v2/models/echo/infer", *lines, f"Content-Length: {len(body)}", body=body)
    before = echoing.service.resident_bytes()
    with wire.connection(echoing.service.http_port) as opened:
        sent = wire.push(opened, request * 600)
        grown = echoing.service.resident_bytes() - before
        echoing.assert_serves()
    assert sent < len(request) * 600
    assert grown < SLACK
