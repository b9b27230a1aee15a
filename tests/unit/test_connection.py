"""The limit on headers, however the bytes are cut, what is left of an ended connection, and models of any kind."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from types import coroutine
from typing import Any

import pytest
import uvloop

from tabserve.inference.admission import Admission
from tabserve.inference.errors import InvalidRequest
from tabserve.inference.memory import Budget
from tabserve.inference.metrics import Metrics
from tabserve.inference.model import Context, Model
from tabserve.inference.rest.application import Application
from tabserve.inference.rest.clients import Clients
from tabserve.inference.rest.connection import Connection
from tests.echo import Echo, EchoSettings
from tests.serving import Service

LIMIT = 64 * 2**10
SETTINGS = EchoSettings(max_body_bytes=2**20, max_connections=100)


def head(padding: int, body: int = 0) -> bytes:
    return b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\nX-A: %b\r\nContent-Length: %d\r\n\r\n" % (b"a" * padding, body)


def statuses(service: Service, *parts: bytes) -> list[bytes]:
    """The status of each answer; each part is sent when the kernel has acknowledged the one before."""
    with socket.create_connection(("127.0.0.1", service.http_port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: connection.recv(2**16), b""))
    return [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]]


def asked(service: Service, count: int, *parts: bytes) -> list[bytes]:
    """The statuses for a client that waits for `count` answers before it ends."""
    received = b""
    with socket.create_connection(("127.0.0.1", service.http_port), timeout=30) as connection:
        for part in parts:
            connection.sendall(part)
        while received.count(b'{"live":true}') < count and (data := connection.recv(2**16)):
            received += data
    return [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]]


def test_headers_at_the_limit_are_read(echo: Service) -> None:
    assert asked(echo, 1, head(LIMIT - 200)) == [b"200"]


def test_headers_over_the_limit_are_refused(echo: Service) -> None:
    assert statuses(echo, head(LIMIT)) == [b"431"]


def test_a_large_body_is_not_taken_for_headers_of_the_next_request(echo: Service) -> None:
    request = head(10, 2 * LIMIT) + b"b" * 2 * LIMIT

    assert asked(echo, 3, request, request, request) == [b"200"] * 3


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
def test_the_end_of_headers_is_found_across_pieces(echo: Service, cut: int) -> None:
    request = head(LIMIT // 2, 2 * LIMIT)

    assert asked(echo, 1, request[:-cut], request[-cut:] + b"b" * 2 * LIMIT) == [b"200"]


def test_pipelined_requests_are_each_held_to_the_limit(echo: Service) -> None:
    many = head(LIMIT // 4) * 8

    assert asked(echo, 8, many[:-7], many[-7:]) == [b"200"] * 8


def clients_of(model: Model, admission: Admission, metrics: Metrics) -> Clients:
    application = Application(model, lambda: True, admission, metrics, SETTINGS.max_body_bytes)
    return Clients(application, admission, Budget(2**30, metrics), SETTINGS)


async def ended_connection() -> None:
    """Ask on a connection, end it, and wait until nothing holds it any more."""
    metrics = Metrics()
    clients = clients_of(Echo(["FP32"], SETTINGS, metrics), Admission(1, metrics), metrics)
    gone = asyncio.Event()
    kept: list[weakref.ref[Connection]] = []

    def connection() -> Connection:
        made = Connection(clients)
        kept.append(weakref.ref(made, lambda _: gone.set()))
        return made

    async with await asyncio.get_running_loop().create_server(connection, "127.0.0.1") as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"POST /v1/models/echo:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nfine")
        assert await reader.readuntil(b"fine")
        writer.close()
        await asyncio.wait_for(gone.wait(), 10)


def test_an_ended_connection_is_freed_without_the_garbage_collector() -> None:
    gc.disable()
    try:
        uvloop.run(ended_connection())
    finally:
        gc.enable()


@coroutine
def yielding(value: object) -> Generator[object]:
    """An awaitable for something that asyncio does not know."""
    yield value


async def cancelled() -> None:
    task = asyncio.create_task(asyncio.Event().wait())
    task.cancel()
    await task


async def refused() -> None:
    """Refuse a request as a proxy in front of the predictor may."""
    error = InvalidRequest("the client closed the request")
    error.http_status = 499
    raise error


class Waiting(Echo):
    """Waits in some way before it answers a V1 request; `given_up` is set when it is cancelled meanwhile."""

    def __init__(self, wait: Callable[[], Coroutine[Any, Any, Any]], metrics: Metrics) -> None:
        super().__init__(["FP32"], EchoSettings(), metrics)
        self._wait = wait
        self.waiting, self.given_up = asyncio.Event(), asyncio.Event()

    async def predict(self, body: bytes, context: Context) -> bytes:
        self.waiting.set()
        try:
            await self._wait()
        except asyncio.CancelledError:
            self.given_up.set()
            raise
        return body


REQUEST = b"POST /v1/models/echo:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nfine"


@asynccontextmanager
async def served(
    wait: Callable[[], Coroutine[Any, Any, Any]],
) -> AsyncGenerator[tuple[Waiting, asyncio.StreamReader, asyncio.StreamWriter]]:
    """The model, and a client connected to it; at the end no request may count as under way."""
    metrics = Metrics()
    admission = Admission(1, metrics)
    model = Waiting(wait, metrics)
    clients = clients_of(model, admission, metrics)
    async with await asyncio.get_running_loop().create_server(lambda: Connection(clients), "127.0.0.1") as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            yield model, reader, writer
        finally:
            writer.close()
            while clients.load.working:
                await asyncio.sleep(0)
    assert not admission.full


async def statuses_of(wait: Callable[[], Coroutine[Any, Any, Any]], count: int) -> list[bytes]:
    """The statuses of `count` requests, one after the other, on one connection."""
    found = []
    async with asyncio.timeout(30), served(wait) as (_, reader, writer):
        for _ in range(count):
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
            found.append(head[9:12])
    return found


WAITS: dict[str, tuple[Callable[[], Coroutine[Any, Any, Any]], bytes]] = {
    "for nothing": (lambda: asyncio.sleep(0), b"200"),
    "for a future": (lambda: asyncio.to_thread(int), b"200"),
    "for what asyncio does not know": (lambda: yielding(5), b"500"),
    "for what was cancelled": (cancelled, b"500"),
    "for a refusal of no registered status": (refused, b"499"),
}


@pytest.mark.parametrize("case", WAITS)
async def test_a_model_that_waits_in_any_way_is_answered_and_done_with(case: str) -> None:
    wait, status = WAITS[case]

    assert await statuses_of(wait, 3) == [status] * 3


async def sleeping_for_ever() -> None:
    while True:
        await asyncio.sleep(0)


@pytest.mark.parametrize("wait", [sleeping_for_ever, lambda: asyncio.Event().wait()], ids=["nothing", "a future"])
async def test_a_model_is_cancelled_when_its_client_goes_away(wait: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    async with asyncio.timeout(30), served(wait) as (model, _, writer):
        writer.write(REQUEST)
        await model.waiting.wait()
        writer.close()
        await model.given_up.wait()
