"""The predictor's client: what it sends, how it spreads requests, which answers it passes on."""

from __future__ import annotations

import asyncio
import time

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
    RequestTooLarge,
)
from tabserve.inference.model import Context
from tabserve_transformer.predictor_client import addresses, breaker
from tests.unit.fake_predictor import (
    OTHER,
    PROBABILITIES,
    REQUEST,
    Call,
    FakePredictor,
    answered,
    client_of,
    client_of_both,
    fails,
    predicted,
    predictors,
    ready,
)


async def test_tensors_go_out_and_come_back_as_binary() -> None:
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
        await client.infer(REQUEST, Context(trace={"x-request-id": "order-17"}))
        assert server.calls[1].header("x-request-id") == "order-17"


async def test_the_clients_deadline_is_told_to_the_predictor() -> None:
    server = FakePredictor()
    async with predictors(server), client_of(server.port) as client:
        await client.infer(REQUEST, Context(deadline=time.monotonic() + 2))
        assert int(server.calls[0].header("x-request-timeout-ms")) <= 2000


async def test_one_connection_is_kept_for_requests_one_after_the_other() -> None:
    server = FakePredictor()
    async with predictors(server), client_of(server.port) as client:
        for _ in range(5):
            await client.infer(REQUEST, Context())
    assert server.connections == 1


async def test_requests_are_spread_over_all_addresses() -> None:
    first = FakePredictor()
    second = FakePredictor("127.0.0.2", first.port)
    async with client_of_both(first, second) as client:
        await asyncio.gather(*(client.infer(REQUEST, Context()) for _ in range(20)))
    assert len(first.calls) == len(second.calls) == 10


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
async def test_refusals_come_through_unchanged(
    status: int, error: type[InferenceError], headers: tuple[str, ...]
) -> None:
    async def refusing(_: Call) -> bytes:
        return answered(f"{status} Reason", b'{"error": "inputs: expected two"}', headers=headers)

    server = FakePredictor(reply=refusing)
    async with predictors(server), client_of(server.port) as client:
        for _ in range(2 * breaker.FAILURES_TO_OPEN):
            caught = await fails(client, error)
        assert caught.http_status == status
        assert caught.message == "inputs: expected two"
        assert caught.retry_after == (7 if headers else None)
    assert len(server.calls) == 2 * breaker.FAILURES_TO_OPEN


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
async def test_a_broken_answer_is_a_failed_prediction_that_tells_nothing(answer: bytes) -> None:
    async def broken(_: Call) -> bytes:
        return answer

    server = FakePredictor(reply=broken)
    async with predictors(server), client_of(server.port) as client:
        caught = await fails(client, PredictionFailed)
        assert caught.http_status == 500
        assert "Traceback" not in caught.message
    assert len(server.calls) == 1


async def test_an_answer_over_the_limit_is_cut_off() -> None:
    async def endless(call: Call) -> None:
        call.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        while not call.writer.transport.is_closing():
            call.writer.write(b"x" * 65536)
            await call.writer.drain()

    server = FakePredictor(reply=endless)
    async with predictors(server), client_of(server.port, max_bytes=2**20) as client:
        caught = await fails(client, PredictionFailed)
        assert caught.message == "the predictor's answer is over 1048576 bytes"


async def test_a_predictor_of_another_release_is_never_used() -> None:
    async def foreign(_: Call) -> bytes:
        return answered(release=OTHER)

    server = FakePredictor(ready=foreign)
    async with predictors(server), client_of(server.port) as client:
        assert not client.ready
        caught = await fails(client, NotReady)
        assert (caught.http_status, caught.retry_after) == (503, 1)
        assert server.calls == []
        server.ready = ready
        await client.addresses.look()
        assert client.ready
        await client.infer(REQUEST, Context())


async def test_an_answer_of_another_release_is_thrown_away() -> None:
    async def replaced(_: Call) -> bytes:
        return predicted(OTHER)

    server = FakePredictor()
    async with predictors(server), client_of(server.port) as client:
        server.reply = replaced
        await fails(client, NotReady)
        await fails(client, NotReady)
    assert len(server.calls) == 1


async def test_among_releases_only_the_own_is_used() -> None:
    async def foreign(_: Call) -> bytes:
        return answered(release=OTHER)

    first = FakePredictor(ready=foreign)
    second = FakePredictor("127.0.0.2", first.port)
    async with client_of_both(first, second) as client:
        for _ in range(6):
            await client.infer(REQUEST, Context())
    assert (len(first.calls), len(second.calls)) == (0, 6)


async def test_ready_ends_when_no_predictor_answers_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async def draining(_: Call) -> bytes:
        return answered("503 Service Unavailable")

    server = FakePredictor()
    async with predictors(server), client_of(server.port) as client:
        assert client.ready
        server.ready = draining
        await client.addresses.look()
        assert client.ready
        await client.infer(REQUEST, Context())  # it still answers while it drains
        monkeypatch.setattr(addresses, "MOST_MISSED", 0)
        assert not client.ready
