"""One kept HTTP/1.1 connection to a predictor."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import httptools
import msgspec

from tabserve.inference.deadlines import Deadlines
from tabserve.inference.errors import DeadlineExceeded

IDLE_SECONDS = 60.0
"""How long a kept connection may be idle and used again; the server closes it after 75 s."""


class Response(msgspec.Struct, gc=False):
    """An HTTP answer, with header names in lower case."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class ConnectionLost(OSError):
    """The connection ended before the answer did.

    begun: whether any of the answer had come. unread: whether the server can't have read the whole request.
    """

    def __init__(self, begun: bool, unread: bool = False) -> None:
        super().__init__("the connection was lost")
        self.begun = begun
        self.unread = unread


class ResponseTooLarge(Exception):
    """The answer is over the limit."""


class Connection(asyncio.Protocol):
    """Sends one request at a time. After an error, a cancellation, a deadline or `connection: close` it is closed.

    HTTP is written out here because a call costs several times less CPU than with aiohttp or grpc.aio
    (`benchmarks/NOTES.md`, 2026-11-21).
    """

    def __init__(self, max_bytes: int, deadlines: Deadlines) -> None:
        self._max_bytes = max_bytes
        self._deadlines = deadlines
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Response] | None = None
        self._idle_since = time.monotonic()
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._chunks: list[bytes] = []
        self._size = 0

    @property
    def idle_seconds(self) -> float:
        """How long ago the connection was last used."""
        return time.monotonic() - self._idle_since

    @property
    def usable(self) -> bool:
        """Whether a request may be sent."""
        transport = self._transport
        open_ = transport is not None and not transport.is_closing()
        return open_ and self._waiter is None and self.idle_seconds < IDLE_SECONDS

    async def exchange(self, request: bytes, deadline: float) -> Response:
        """The answer to a whole HTTP request. Raises ConnectionLost, ResponseTooLarge or DeadlineExceeded."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionLost(begun=False, unread=True)
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._deadlines.in_time(self._waiter, deadline)
        except (asyncio.CancelledError, DeadlineExceeded):
            self.close()
            raise
        finally:
            self._waiter = None
            self._idle_since = time.monotonic()

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note that the connection is open."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it

    def data_received(self, data: bytes) -> None:
        """Take part of the answer, or bytes that were not asked for."""
        if self._waiter is None:
            self.close()
            return
        self._size += len(data)
        if self._size > self._max_bytes:
            self._fail(ResponseTooLarge())
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail(ConnectionLost(begun=True))

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the other side, or `close`, ended the connection."""
        # A system resets a connection that its program left with bytes unread, or never accepted. After the last byte
        # was read, the system ends it in order even if the program dies (RFC 2525, section 2.17).
        begun = self._size > 0
        self._fail(ConnectionLost(begun, unread=isinstance(exc, ConnectionError) and not begun))

    def on_message_begin(self) -> None:
        """Begin an answer (httptools); one that was not asked for must not count as the next request's."""
        if self._waiter is None or self._waiter.done():
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header (httptools)."""
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        """Take part of the body (httptools)."""
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        """End an answer (httptools)."""
        if self._waiter is None or self._waiter.done():
            return
        self._waiter.set_result(Response(self._parser.get_status_code(), self._headers, b"".join(self._chunks)))
        if not self._parser.should_keep_alive():
            self.close()
        self._headers, self._chunks, self._size = {}, [], 0

    def _fail(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        self.close()
