"""The predictor's client with predictors that are gone, slow, cut off or closed."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import struct
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabserve.inference.errors import DeadlineExceeded, InferenceError, PredictorUnavailable
from tabserve.inference.model import Context
from tabserve_transformer.predictor_client import address, breaker
from tabserve_transformer.predictor_client.addresses import ClientOptions
from tabserve_transformer.predictor_client.client import PredictorClient
from tabserve_transformer.predictor_client.codec import decode
from tabserve_transformer.predictor_client.connection import Response
from tests.serving import free_port
from tests.unit.fake_predictor import (
    OWN,
    REQUEST,
    Call,
    FakePredictor,
    answered,
    client_of,
    client_of_both,
    closing,
    fails,
    name_resolves_to,
    predicted,
    predictors,
    silent,
    well,
)


async def test_an_address_that_went_away_costs_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "STALE_SECONDS", 0.0)

    first = FakePredictor()
    second = FakePredictor("127.0.0.2", first.port)
    async with client_of_both(first, second) as client:
        await first.stop()
        for _ in range(20):
            await client.infer(REQUEST, Context())
    assert len(second.calls) == 20


async def test_an_address_that_is_about_to_end_is_passed_over() -> None:
    async def ending(_: Call) -> bytes:
        return predicted().replace(b"\r\n", b"\r\nconnection: close\r\n", 1)

    first = FakePredictor(reply=ending)
    second = FakePredictor("127.0.0.2", first.port)
    async with client_of_both(first, second) as client:
        for _ in range(10):
            await client.infer(REQUEST, Context())
        assert len(first.calls) == 1
        await second.stop()
        await client.addresses.look()
        await client.infer(REQUEST, Context())  # it is still used if there is no other
    assert len(first.calls) == 2


async def test_an_address_that_left_the_name_serves_until_another_one_can() -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def late(_: Call) -> bytes:
        asked.set()
        await may_answer.wait()
        return answered()

    leaving = FakePredictor()
    coming = FakePredictor("127.0.0.2", leaving.port, ready=late)
    async with predictors(leaving, coming), client_of(leaving.port) as client:
        name_resolves_to(leaving.port, "127.0.0.2")
        looking = asyncio.create_task(client.addresses.look())
        await asked.wait()
        await client.infer(REQUEST, Context())
        may_answer.set()
        await looking
        await client.infer(REQUEST, Context())
        assert [address.endpoint.host for address in client.addresses] == ["127.0.0.2"]
    assert [len(leaving.calls), len(coming.calls)] == [1, 1]


async def test_an_address_with_a_request_under_way_is_passed_over() -> None:
    begun = asyncio.Event()

    async def never(call: Call) -> None:
        begun.set()
        await call.reader.read()

    first = FakePredictor(reply=never)
    second = FakePredictor("127.0.0.2", first.port, reply=never)
    async with client_of_both(first, second) as client:
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


async def test_nobody_there_is_unavailable_at_once() -> None:
    async with client_of(free_port()) as client:
        assert not client.ready
        caught = await fails(client, PredictorUnavailable)
        assert (caught.http_status, caught.retry_after) == (503, 1)


async def test_a_name_that_is_not_found_is_unavailable() -> None:
    async with client_of(80, host="predictor.invalid") as client:
        await fails(client, PredictorUnavailable)


async def test_a_predictor_that_stops_is_unavailable_and_recovers() -> None:
    server = FakePredictor()
    async with predictors(server), client_of(server.port) as client:
        await client.infer(REQUEST, Context())
        await server.stop()
        await fails(client, PredictorUnavailable)
        await server.start()
        await client.infer(REQUEST, Context())


async def test_the_rounds_find_a_predictor_that_comes_later() -> None:
    rounds = asyncio.Semaphore(0)

    async def looked(_: Call) -> bytes:
        rounds.release()
        return answered()

    server = FakePredictor(ready=looked)
    client = PredictorClient(ClientOptions("127.0.0.1", server.port, "fraud", OWN, refresh=0.01))
    await client.start()
    async with predictors(server):
        for _ in range(2):  # when the second comes, the first has been answered
            await rounds.acquire()
        assert client.ready
        await client.infer(REQUEST, Context())
        await client.stop()


async def test_an_idle_connection_that_was_closed_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "STALE_SECONDS", 0.0)

    async def once(call: Call) -> bytes | None:
        return predicted() if call.number < 2 else None

    server = FakePredictor(reply=once)
    async with predictors(server), client_of(server.port) as client:
        for _ in range(6):
            await client.infer(REQUEST, Context())
    # Each connection answers twice (the first a probe and a request); the next request on it is sent again.
    assert server.connections == 4


async def test_a_request_that_may_have_been_started_is_not_sent_again() -> None:
    async def partly(call: Call) -> None:
        call.writer.write(predicted()[:40])
        await call.writer.drain()

    server = FakePredictor()
    async with predictors(server), client_of(server.port) as client:
        for reply in (partly, closing):
            server.reply, server.calls = well, []
            await client.infer(REQUEST, Context())
            server.reply = reply
            caught = await fails(client, PredictorUnavailable)
            assert caught.message == "the connection to the predictor was lost"
            assert len(server.calls) == 2


async def test_a_request_that_nobody_read_is_sent_to_another_address() -> None:
    async def reset(call: Call) -> None:
        call.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    first = FakePredictor(reply=reset)
    second = FakePredictor("127.0.0.2", first.port)
    async with client_of_both(first, second) as client:
        for _ in range(8):
            await client.infer(REQUEST, Context())
        assert first.calls
        assert len(second.calls) == 8


async def test_an_address_that_answers_is_as_good_as_one_that_was_probed() -> None:
    async def unwell(_: Call) -> bytes:
        return answered("503 Service Unavailable")

    first = FakePredictor(ready=unwell)
    second = FakePredictor("127.0.0.2", first.port, ready=unwell)
    async with client_of_both(first, second) as client:
        await client.infer(REQUEST, Context())
        (lively,) = (server for server in (first, second) if server.calls)
        for _ in range(9):
            await client.infer(REQUEST, Context())
        assert len(lively.calls) == 10


async def test_an_answer_nobody_asked_for_is_not_given_to_the_next_request() -> None:
    async def twice(_: Call) -> bytes:
        return predicted() + answered("400 Bad Request", b'{"error": "of another request"}')

    server = FakePredictor(reply=twice)
    async with predictors(server), client_of(server.port) as client:
        for _ in range(3):
            await client.infer(REQUEST, Context())
    assert server.connections == 3


def test_retries_end_with_the_budget() -> None:
    budget = breaker.RetryBudget()
    reserve = sum(budget.spend() for _ in range(100))
    assert reserve == breaker.RETRY_RESERVE
    granted = 0
    for _ in range(1000):
        budget.earn()
        granted += budget.spend()
    assert granted == pytest.approx(1000 * breaker.RETRY_SHARE, abs=1)


async def test_a_predictor_that_stalls_is_a_deadline_and_opens_the_breaker() -> None:
    server = FakePredictor(reply=silent)
    async with predictors(server), client_of(server.port, timeout=0.05) as client:
        for _ in range(breaker.FAILURES_TO_OPEN):
            caught = await fails(client, DeadlineExceeded)
            assert caught.message == "the predictor did not answer in time"
        await fails(client, PredictorUnavailable)
        assert len(server.calls) == breaker.FAILURES_TO_OPEN
        await client.addresses.look()
        await fails(client, PredictorUnavailable)  # saying that it is ready does not close the breaker


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


async def test_a_deadline_of_the_client_does_not_count_against_the_predictor() -> None:
    server = FakePredictor(reply=silent)
    async with predictors(server), client_of(server.port) as client:
        for _ in range(2 * breaker.FAILURES_TO_OPEN):
            await fails(client, DeadlineExceeded, Context(deadline=time.monotonic() + 0.02))
    assert len(server.calls) == 2 * breaker.FAILURES_TO_OPEN


async def test_a_deadline_that_passed_sends_nothing() -> None:
    server = FakePredictor()
    async with predictors(server), client_of(server.port) as client:
        await fails(client, DeadlineExceeded, Context(deadline=-math.inf))
    assert server.calls == []


async def test_cancelling_a_request_closes_its_connection() -> None:
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


@given(st.binary(max_size=200), st.none() | st.integers(-5, 300), st.sampled_from([200, 200, 200, 400, 503, 599, 204]))
def test_whatever_the_predictor_answers_is_an_answer_or_an_error(body: bytes, size: int | None, status: int) -> None:
    headers = {} if size is None else {b"inference-header-content-length": b"%d" % size, b"retry-after": body[:3]}
    with suppress(InferenceError):
        decode(Response(status, headers, body))


SHAPES = st.lists(st.integers(-2, 2) | st.integers(), max_size=4)


@given(SHAPES, st.sampled_from(["FP32", "BYTES", "BOOL", "X"]), st.integers(-5, 20) | st.integers(), st.binary())
def test_whatever_shape_the_predictor_claims_is_an_answer_or_an_error(
    shape: list[int], datatype: str, size: int, raw: bytes
) -> None:
    output = {"name": "p", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}
    head = json.dumps({"outputs": [output]}).encode()
    with suppress(InferenceError):
        decode(Response(200, {b"inference-header-content-length": b"%d" % len(head)}, head + raw))


async def test_a_silent_address_gets_no_requests_until_it_answers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "SILENT_SECONDS", 0.5)
    first = FakePredictor(reply=silent)
    second = FakePredictor("127.0.0.2", first.port)
    async with client_of_both(first, second) as client:
        waiting = asyncio.gather(*(client.infer(REQUEST, Context()) for _ in range(2)), return_exceptions=True)
        while not any(each.is_silent(time.monotonic()) for each in client.addresses):
            await asyncio.wait([waiting], timeout=0.01)
        for _ in range(20):
            await asyncio.gather(*(client.infer(REQUEST, Context()) for _ in range(4)))
        assert len(first.calls) == 1, "although it has the fewest requests under way"

        first.reply = well
        await client.addresses.look()
        while len(first.calls) == 1:
            await asyncio.gather(*(client.infer(REQUEST, Context()) for _ in range(4)))
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting


async def test_deadlines_of_clients_open_the_breaker_if_probes_are_not_answered_either() -> None:
    server = FakePredictor()
    async with predictors(server), client_of(server.port) as client:
        server.reply = silent
        (only,) = client.addresses
        only.ready = False
        for _ in range(breaker.FAILURES_TO_OPEN):
            await fails(client, DeadlineExceeded, Context(deadline=time.monotonic() + 0.02))
        await fails(client, PredictorUnavailable)
    assert len(server.calls) == breaker.FAILURES_TO_OPEN
