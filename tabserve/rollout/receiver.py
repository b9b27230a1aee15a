"""Read requests that nobody waits for, in a thread of its own, and answer each at once."""

from __future__ import annotations

import asyncio
import threading
from typing import Protocol, cast

from tabserve.inference.rest.parser import MalformedError, Parser, Request

MOST_BODY_BYTES = 1 << 20
MOST_HEADER_BYTES = 1 << 14
MOST_CONNECTIONS = 64
"""The most that are read from at once, which bounds the memory of bodies that are on their way."""
_TAKEN = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Take(Protocol):
    """What takes requests."""

    def __call__(self, request: Request, *, kept: bool) -> None:
        """Take a request; it never waits. kept: whether its body was, because it is not too long."""


class Receiver:
    """Listens on a port. port: which one, once it has started."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="receiving", daemon=True)
        self._connections: set[_Connection] = set()

    def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError if the port is taken."""
        self._thread.start()
        listening = self._loop.create_server(lambda: _Connection(self._take, self._connections), host, port)
        try:
            self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result()
        except OSError:
            self._end()
            raise
        self.port: int = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Listen no more, and end all connections."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._end()

    async def _close(self) -> None:
        self._server.close()
        for connection in list(self._connections):
            connection.abort()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Connection(asyncio.Protocol):
    """A client's connection: the transport's protocol, and the reader of its parser's events."""

    def __init__(self, take: Take, connections: set[_Connection]) -> None:
        self._take, self._connections = take, connections
        self._transport: asyncio.Transport
        self._parser = Parser(self, MOST_HEADER_BYTES, MOST_BODY_BYTES)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read, unless there are too many."""
        self._transport = cast("asyncio.Transport", transport)
        if len(self._connections) >= MOST_CONNECTIONS:
            self._transport.abort()
        else:
            self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what has arrived."""
        self._connections.discard(self)
        self._parser.end()

    def abort(self) -> None:
        """End the connection."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse the data; what is no HTTP/1.1 ends the connection."""
        try:
            self._parser.feed(data)
        except MalformedError:
            self._transport.abort()

    def begun(self) -> None:
        """Note that a request begins."""

    def headers_read(self, request: Request) -> bool:
        """Keep the body, unless it says that it is too long."""
        length = request.headers.get(b"content-length", b"")
        return not length.isdigit() or int(length) <= MOST_BODY_BYTES

    def too_large(self, request: Request) -> None:
        """Note that the rest of the body is discarded."""

    def read(self, request: Request, *, kept: bool) -> None:
        """Hand a whole request over, and answer."""
        self._take(request, kept=kept)
        self._transport.write(_TAKEN)
        if not request.keep_alive:
            self._transport.close()
