"""A client's connection: uvicorn's HTTP protocol with limits on headers and on time, and JSON errors."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from tabserve.inference.http import error_body

SWEEP_SECONDS = 1.0


class _HeadersTooLarge(ValueError):
    pass


class Connection(HttpToolsProtocol):
    """Ends a connection whose request is malformed (400), too long in its headers (431), or too slow in coming."""

    max_header_bytes = 64 * 2**10

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reading_since: float | None = self.loop.time()
        self.task: asyncio.Task[None] | None = None
        self._header_bytes = 0
        self._unfinished = 0
        self._in_headers = True

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone away: what answers it is cancelled."""
        super().connection_lost(exc)
        if self.task is not None:
            self.task.cancel()

    def on_message_begin(self) -> None:
        """A request begins; the application finds this connection in its scope and sets `task` while it works."""
        super().on_message_begin()
        self.reading_since = self.loop.time()
        self._header_bytes = 0
        self._in_headers = True
        self.scope["tabserve.connection"] = self  # type: ignore[typeddict-unknown-key]

    def data_received(self, data: bytes) -> None:
        """Parse what came; a header that never ends is counted here, before the parser hands it out."""
        super().data_received(data)
        if self._in_headers and not self.transport.is_closing():
            self._unfinished += len(data)
            if self._unfinished > self.max_header_bytes:
                self._header_bytes = self._unfinished
                self.send_400_response("")

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The headers are read; the application starts."""
        self._in_headers = False
        self._unfinished = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is read."""
        self.reading_since = None
        super().on_message_complete()

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self.max_header_bytes:
            raise _HeadersTooLarge

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request of ours, and close."""
        if self._header_bytes > self.max_header_bytes:
            self._refuse(431, f"expected at most {self.max_header_bytes} bytes of headers")
        else:
            self._refuse(400, "expected an HTTP/1.1 request")

    def time_out(self, before: float) -> None:
        """Answer 408 and close if the request under way began before that loop time."""
        if self.reading_since is not None and self.reading_since < before and not self.transport.is_closing():
            self._refuse(408, "the request took too long to arrive")

    def _refuse(self, status: int, message: str) -> None:
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = error_body(message)
            head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()


async def sweep(connections: set[Connection], read_timeout: float) -> None:
    """Forever end the connections whose request has been coming for longer than `read_timeout` seconds."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        for connection in list(connections):
            connection.time_out(loop.time() - read_timeout)
