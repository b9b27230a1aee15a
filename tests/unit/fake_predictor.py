"""A predictor on a real socket, with answers written by a test, and a client for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pytest

from tabserve.inference.errors import InferenceError
from tabserve.inference.model import Context
from tabserve.inference.tensors import InferRequest, RequestedOutput, Tensor
from tabserve_transformer.predictor_client.addresses import ClientOptions
from tabserve_transformer.predictor_client.client import PredictorClient
from tests.serving import free_port

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
    """A correct answer to REQUEST."""
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
    """A client that has run one round of looking for predictors."""
    client = PredictorClient(ClientOptions(host, port, "fraud", OWN, **{"timeout": 5.0, **settings}))
    await client.addresses.look()
    try:
        yield client
    finally:
        await client.stop()


async def fails(client: PredictorClient, expected: type[InferenceError], context: Context | None = None) -> Any:
    with pytest.raises(expected) as caught:
        await client.infer(REQUEST, context or Context())
    return caught.value


async def two_addresses(client: PredictorClient, port: int) -> None:
    """Have the client find 127.0.0.1 and 127.0.0.2 under its one name, as a headless Service resolves."""
    name_resolves_to(port, "127.0.0.1", "127.0.0.2")
    await client.addresses.look()


@asynccontextmanager
async def client_of_both(first: FakePredictor, second: FakePredictor) -> AsyncGenerator[PredictorClient]:
    """A client of two predictors under one name, on 127.0.0.1 and 127.0.0.2, which run meanwhile."""
    async with predictors(first, second), client_of(first.port) as client:
        await two_addresses(client, first.port)
        yield client


def name_resolves_to(port: int, *hosts: str) -> None:
    """Make every name resolve to these addresses from now on."""

    async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        return [(0, 0, 0, "", (host, port)) for host in hosts]

    loop = asyncio.get_running_loop()
    loop.getaddrinfo = getaddrinfo  # type: ignore[method-assign]  # no resolver here gives one name two
