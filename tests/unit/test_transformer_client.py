"""The predictor's client against servers on real sockets that misbehave in every way we could think of."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pytest

from tabserve.inference.errors import (
    DeadlineExceeded,
    InferenceError,
    InvalidRequest,
    ModelNotFound,
    NotReady,
    PredictionFailed,
    PredictorUnavailable,
    RequestTooLarge,
)
from tabserve.inference.model import Context
from tabserve.inference.tensors import InferRequest, RequestedOutput, Tensor
from tests.serving import free_port
from transformer import breaker, predictor_client
from transformer.predictor_client import PredictorClient, Target

OWN, OTHER = "release-7", "release-8"
REQUEST = InferRequest(
    (Tensor("input-0", "FP32", np.array([[1, 2], [3, 4]], np.float32)),), outputs=(RequestedOutput("predict_proba"),)
)
PROBABILITIES = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)

Reply = Callable[["Call"], Awaitable[bytes | None]]


@dataclass
class Call:
    """One request as the server read it."""

    head: bytes
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int
    """How many requests came before it on its connection."""

    def header(self, name: str) -> str:
        found = re.search(rb"(?im)^%b: (.*?)\r$" % name.encode(), self.head)
        assert found is not None, f"no header {name} in {self.head!r}"
        return found[1].decode()


def answered(
    status: str = "200 OK", body: bytes = b"{}", *, release: str | None = OWN, headers: tuple[str, ...] = ()
) -> bytes:
    """An HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers]
    lines += [f"tabserve-predictor-release: {release}"] if release else []
    return "\r\n".join([*lines, "", ""]).encode() + body


def predicted(release: str = OWN) -> bytes:
    """The right answer to REQUEST."""
    raw = PROBABILITIES.tobytes()
    output = {
        "name": "predict_proba",
        "datatype": "FP32",
        "shape": [2, 2],
        "parameters": {"binary_data_size": len(raw)},
    }
    head = orjson.dumps({"model_name": "fraud", "outputs": [output]})
    return answered(body=head + raw, release=release, headers=(f"inference-header-content-length: {len(head)}",))


async def well(_: Call) -> bytes:
    return predicted()


async def silent(_: Call) -> bytes:
    await asyncio.Event().wait()
    raise AssertionError


async def closing(_: Call) -> None:
    return None


async def ready(_: Call) -> bytes:
    return answered()


@dataclass
class FakePredictor:
    """A server whose answers a test writes. A reply of None closes the connection."""

    host: str = "127.0.0.1"
    port: int = field(default_factory=free_port)
    reply: Reply = well
    ready: Reply = ready
    calls: list[Call] = field(default_factory=list)
    connections: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.host, self.port)

    async def stop(self) -> None:
        """Stop listening, and reset every connection."""
        if self._server is not None:
            self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"\ncontent-length: (\d+)", head)
            body = await reader.readexactly(int(length[1]) if length else 0)
            call = Call(head, body, reader, writer, number)
            number += 1
            if head.startswith(b"GET"):
                answer = await self.ready(call)
            else:
                self.calls.append(call)
                answer = await self.reply(call)
            if answer is None:
                return
            writer.write(answer)


@asynccontextmanager
async def predictors(*servers: FakePredictor) -> AsyncGenerator[None]:
    for server in servers:
        await server.start()
    try:
        yield
    finally:
        for server in servers:
            await server.stop()


@asynccontextmanager
async def client_of(port: int, host: str = "127.0.0.1", **settings: Any) -> AsyncGenerator[PredictorClient]:
    """A client that has looked around once."""
    client = PredictorClient(Target(host, port, "fraud", OWN, **{"timeout": 5.0, **settings}))
    await client.look()
    try:
        yield client
    finally:
        await client.stop()


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine, which must not hang."""

    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test

    asyncio.run(bounded())


async def fails(client: PredictorClient, expected: type[InferenceError], context: Context | None = None) -> Any:
    with pytest.raises(expected) as caught:
        await client.infer(REQUEST, context or Context())
    return caught.value


def test_tensors_go_out_and_come_back_as_binary() -> None:
    async def test() -> None:
        server = FakePredictor()
        async with predictors(server), client_of(server.port) as client:
            context = Context(trace={"traceparent": "00-ab-cd-01", "x-request-id": "7\r\nhost: evil"})
            response = await client.infer(REQUEST, context)
            assert [output.name for output in response.outputs] == ["predict_proba"]
            np.testing.assert_array_equal(response.outputs[0].array, PROBABILITIES)
            (call,) = server.calls
            assert call.head.startswith(b"POST /v2/models/fraud/infer HTTP/1.1\r\n")
            size = int(call.header("inference-header-content-length"))
            head = orjson.loads(call.body[:size])
            assert head["inputs"] == [
                {"name": "input-0", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": 16}}
            ]
            assert head["outputs"] == [{"name": "predict_proba"}]
            assert call.body[size:] == REQUEST.inputs[0].array.tobytes()
            assert call.header("traceparent") == "00-ab-cd-01"
            assert b"evil" not in call.head
            assert 4000 < int(call.header("x-request-timeout-ms")) <= 5000

    run(test())


def test_the_clients_deadline_is_told_to_the_predictor() -> None:
    async def test() -> None:
        server = FakePredictor()
        async with predictors(server), client_of(server.port) as client:
            await client.infer(REQUEST, Context(deadline=time.monotonic() + 2))
            assert int(server.calls[0].header("x-request-timeout-ms")) <= 2000

    run(test())


def test_one_connection_is_kept_for_requests_one_after_the_other() -> None:
    async def test() -> None:
        server = FakePredictor()
        async with predictors(server), client_of(server.port) as client:
            for _ in range(5):
                await client.infer(REQUEST, Context())
        assert server.connections == 1

    run(test())


def test_requests_are_spread_over_all_addresses() -> None:
    async def test() -> None:
        first = FakePredictor()
        second = FakePredictor("127.0.0.2", first.port)
        async with predictors(first, second), client_of(first.port) as client:
            await two_addresses(client, first.port)
            await asyncio.gather(*(client.infer(REQUEST, Context()) for _ in range(20)))
        assert len(first.calls) == len(second.calls) == 10

    run(test())


async def two_addresses(client: PredictorClient, port: int) -> None:
    """Have the client find 127.0.0.1 and 127.0.0.2 under its one name, as a headless Service resolves."""
    loop = asyncio.get_running_loop()

    async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        return [(0, 0, 0, "", ("127.0.0.1", port)), (0, 0, 0, "", ("127.0.0.2", port))]

    loop.getaddrinfo = getaddrinfo  # type: ignore[method-assign]  # no resolver here gives one name two
    await client.look()


def test_an_address_that_went_away_costs_no_request() -> None:
    async def test() -> None:
        first = FakePredictor()
        second = FakePredictor("127.0.0.2", first.port)
        async with predictors(first, second), client_of(first.port) as client:
            await two_addresses(client, first.port)
            await first.stop()
            for _ in range(20):
                await client.infer(REQUEST, Context())
        assert len(second.calls) == 20

    run(test())


def test_an_address_with_a_request_under_way_is_passed_over() -> None:
    async def test() -> None:
        begun = asyncio.Event()

        async def never(call: Call) -> None:
            begun.set()
            await call.reader.read()

        first = FakePredictor(reply=never)
        second = FakePredictor("127.0.0.2", first.port, reply=never)
        async with predictors(first, second), client_of(first.port) as client:
            await two_addresses(client, first.port)
            waiting = asyncio.create_task(client.infer(REQUEST, Context()))
            await begun.wait()
            (free,) = (server for server in (first, second) if not server.calls)
            free.reply = well
            for _ in range(10):
                await client.infer(REQUEST, Context())
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert sorted([len(first.calls), len(second.calls)]) == [1, 10]

    run(test())


@pytest.mark.parametrize(
    ("status", "error", "headers"),
    [
        (400, InvalidRequest, ()),
        (404, ModelNotFound, ()),
        (413, RequestTooLarge, ()),
        (422, InvalidRequest, ()),
        (503, InferenceError, ("Retry-After: 7",)),
        (504, DeadlineExceeded, ()),
    ],
)
def test_refusals_come_through_unchanged(status: int, error: type[InferenceError], headers: tuple[str, ...]) -> None:
    async def refusing(_: Call) -> bytes:
        return answered(f"{status} Reason", b'{"error": "inputs: expected two"}', headers=headers)

    async def test() -> None:
        server = FakePredictor(reply=refusing)
        async with predictors(server), client_of(server.port) as client:
            for _ in range(2 * breaker.FAILURES_TO_OPEN):
                caught = await fails(client, error)
            assert caught.http_status == status
            assert caught.message == "inputs: expected two"
            assert caught.retry_after == (7 if headers else None)
        assert len(server.calls) == 2 * breaker.FAILURES_TO_OPEN

    run(test())


@pytest.mark.parametrize(
    "answer",
    [
        answered("500 Internal Server Error", b'{"error": "Traceback /app/model.py"}'),
        answered("502 Bad Gateway", b"<html>", release=None),
        answered(body=b"not JSON"),
        answered(body=b'{"outputs": [{"name": "p", "datatype": "FP32", "shape": [2], "parameters": {}}]}'),
        answered(
            body=b'{"outputs": [{"name": "p", "datatype": "X", "shape": [2], "parameters": {"binary_data_size": 0}}]}'
        ),
        answered(
            body=b'{"outputs": [{"name":"p","datatype":"FP32","shape":[2],"parameters":{"binary_data_size":-1}}]}1234'
        ),
        answered(body=b"{}", headers=("inference-header-content-length: x",)),
    ],
)
def test_a_broken_answer_is_a_failed_prediction_that_tells_nothing(answer: bytes) -> None:
    async def broken(_: Call) -> bytes:
        return answer

    async def test() -> None:
        server = FakePredictor(reply=broken)
        async with predictors(server), client_of(server.port) as client:
            caught = await fails(client, PredictionFailed)
            assert caught.http_status == 500
            assert "Traceback" not in caught.message
        assert len(server.calls) == 1

    run(test())


def test_an_answer_over_the_limit_is_cut_off() -> None:
    async def endless(call: Call) -> None:
        call.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        while not call.writer.transport.is_closing():
            call.writer.write(b"x" * 65536)
            await call.writer.drain()

    async def test() -> None:
        server = FakePredictor(reply=endless)
        async with predictors(server), client_of(server.port, max_bytes=2**20) as client:
            caught = await fails(client, PredictionFailed)
            assert caught.message == "the predictor's answer is over 1048576 bytes"

    run(test())


def test_nobody_there_is_unavailable_at_once() -> None:
    async def test() -> None:
        async with client_of(free_port()) as client:
            assert not client.ready
            caught = await fails(client, PredictorUnavailable)
            assert (caught.http_status, caught.retry_after) == (503, 1)

    run(test())


def test_a_name_that_is_not_found_is_unavailable() -> None:
    async def test() -> None:
        async with client_of(80, host="predictor.invalid") as client:
            await fails(client, PredictorUnavailable)

    run(test())


def test_a_predictor_that_stops_is_unavailable_and_recovers() -> None:
    async def test() -> None:
        server = FakePredictor()
        async with predictors(server), client_of(server.port) as client:
            await client.infer(REQUEST, Context())
            await server.stop()
            await fails(client, PredictorUnavailable)
            await server.start()
            await client.infer(REQUEST, Context())

    run(test())


def test_the_rounds_find_a_predictor_that_comes_later() -> None:
    async def test() -> None:
        server = FakePredictor()
        client = PredictorClient(Target("127.0.0.1", server.port, "fraud", OWN, refresh=0.01))
        await client.start()
        async with predictors(server):
            while not client.ready:
                await asyncio.sleep(0.01)
            await client.infer(REQUEST, Context())
            await client.stop()

    run(test())


def test_a_kept_connection_that_was_closed_is_replaced() -> None:
    async def once(call: Call) -> bytes | None:
        return predicted() if call.number < 2 else None

    async def test() -> None:
        server = FakePredictor(reply=once)
        async with predictors(server), client_of(server.port) as client:
            for _ in range(6):
                await client.infer(REQUEST, Context())
        # Each connection answers twice (the first a probe and a request), and the next request on it is sent again.
        assert server.connections == 4

    run(test())


def test_a_request_that_may_have_been_started_is_not_sent_again() -> None:
    async def partly(call: Call) -> None:
        call.writer.write(predicted()[:40])
        await call.writer.drain()

    async def test() -> None:
        server = FakePredictor()
        async with predictors(server), client_of(server.port) as client:
            server.reply = partly
            caught = await fails(client, PredictorUnavailable)
            assert caught.message == "the connection to the predictor was lost"
            assert len(server.calls) == 1
            server.reply = closing
            server.calls.clear()
            await fails(client, PredictorUnavailable)
        assert len(server.calls) == 1  # on a fresh connection, so that it was not idle when it was closed

    run(test())


def test_retries_end_with_the_budget() -> None:
    budget = breaker.RetryBudget()
    reserve = sum(budget.spend() for _ in range(100))
    assert reserve == breaker.RETRY_RESERVE
    granted = 0
    for _ in range(1000):
        budget.earn()
        granted += budget.spend()
    assert granted == pytest.approx(1000 * breaker.RETRY_SHARE, abs=1)


def test_a_predictor_that_stalls_is_a_deadline_and_opens_the_breaker() -> None:
    async def test() -> None:
        server = FakePredictor(reply=silent)
        async with predictors(server), client_of(server.port, timeout=0.05) as client:
            for _ in range(breaker.FAILURES_TO_OPEN):
                caught = await fails(client, DeadlineExceeded)
                assert caught.message == "the predictor did not answer in time"
            await fails(client, PredictorUnavailable)
            assert len(server.calls) == breaker.FAILURES_TO_OPEN
            await client.look()
            await fails(client, PredictorUnavailable)  # that it says it is ready does not close the breaker

    run(test())


def test_an_open_breaker_lets_one_request_try_and_closes_on_success() -> None:
    state = breaker.Breaker()
    for _ in range(breaker.FAILURES_TO_OPEN):
        assert state.allows(now=0.0)
        state.enter(now=0.0)
        state.failed(now=0.0)
    assert not state.allows(now=breaker.OPEN_SECONDS / 2)
    later = breaker.OPEN_SECONDS
    assert state.allows(later)
    state.enter(later)
    assert not state.allows(later)
    state.succeeded()
    assert state.allows(later)


def test_a_deadline_of_the_client_does_not_count_against_the_predictor() -> None:
    async def test() -> None:
        server = FakePredictor(reply=silent)
        async with predictors(server), client_of(server.port) as client:
            for _ in range(2 * breaker.FAILURES_TO_OPEN):
                await fails(client, DeadlineExceeded, Context(deadline=time.monotonic() + 0.02))
        assert len(server.calls) == 2 * breaker.FAILURES_TO_OPEN

    run(test())


def test_a_deadline_that_passed_sends_nothing() -> None:
    async def test() -> None:
        server = FakePredictor()
        async with predictors(server), client_of(server.port) as client:
            await fails(client, DeadlineExceeded, Context(deadline=-math.inf))
        assert server.calls == []

    run(test())


def test_cancelling_a_request_closes_its_connection() -> None:
    async def test() -> None:
        begun, closed = asyncio.Event(), asyncio.Event()

        async def until_closed(call: Call) -> None:
            begun.set()
            assert await call.reader.read() == b""
            closed.set()

        server = FakePredictor(reply=until_closed)
        async with predictors(server), client_of(server.port) as client:
            task = asyncio.create_task(client.infer(REQUEST, Context()))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await closed.wait()
            server.reply = well
            await client.infer(REQUEST, Context())
            assert server.connections == 2

    run(test())


def test_a_predictor_of_another_release_is_never_used() -> None:
    async def foreign(_: Call) -> bytes:
        return answered(release=OTHER)

    async def test() -> None:
        server = FakePredictor(ready=foreign)
        async with predictors(server), client_of(server.port) as client:
            assert not client.ready
            caught = await fails(client, NotReady)
            assert (caught.http_status, caught.retry_after) == (503, 1)
            assert server.calls == []
            server.ready = ready
            await client.look()
            assert client.ready
            await client.infer(REQUEST, Context())

    run(test())


def test_an_answer_of_another_release_is_thrown_away() -> None:
    async def replaced(_: Call) -> bytes:
        return predicted(OTHER)

    async def test() -> None:
        server = FakePredictor()
        async with predictors(server), client_of(server.port) as client:
            server.reply = replaced
            await fails(client, NotReady)
            await fails(client, NotReady)
        assert len(server.calls) == 1

    run(test())


def test_among_releases_only_the_own_is_used() -> None:
    async def foreign(_: Call) -> bytes:
        return answered(release=OTHER)

    async def test() -> None:
        first = FakePredictor(ready=foreign)
        second = FakePredictor("127.0.0.2", first.port)
        async with predictors(first, second), client_of(first.port) as client:
            await two_addresses(client, first.port)
            for _ in range(6):
                await client.infer(REQUEST, Context())
        assert (len(first.calls), len(second.calls)) == (0, 6)

    run(test())


def test_ready_ends_when_no_predictor_answers_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async def draining(_: Call) -> bytes:
        return answered("503 Service Unavailable")

    async def test() -> None:
        server = FakePredictor()
        async with predictors(server), client_of(server.port) as client:
            assert client.ready
            server.ready = draining
            await client.look()
            assert client.ready
            await client.infer(REQUEST, Context())  # it still answers while it drains
            monkeypatch.setattr(predictor_client, "READY_SECONDS", 0.0)
            assert not client.ready

    run(test())
