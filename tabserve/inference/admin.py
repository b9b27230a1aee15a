"""Health, readiness and metrics on a separate port, where a thread answers even if the event loop is blocked."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

from tabserve.inference.rest.application import Answer, error_body, failed, message, not_allowed
from tabserve.inference.rest.pages import JSON, Pages
from tabserve.inference.rest.parser import path

BEAT_SECONDS = 0.5
STALLED_SECONDS = 30.0
"""How long an event loop may stand still before its server is not live."""
MOST_CLIENTS = 64
"""The most clients connected at once; the oldest makes room for another."""
BACKLOG = 128
MOST_HEAD_BYTES = 16 * 2**10
MOST_SECONDS = 5.0
"""How long a client may take, from connecting until it has read its answer."""

_END_OF_HEAD = b"\r\n\r\n"


class Heartbeat:
    """Whether a loop turns, such as the event loop.

    now: the time in seconds. stalled_seconds: how long it may stand still.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, *, stalled_seconds: float = STALLED_SECONDS) -> None:
        self._now, self._stalled_seconds = now, stalled_seconds
        self.beat()

    @property
    def live(self) -> bool:
        """Whether the loop has turned recently, or has not begun yet."""
        return self._now() - self._last < self._stalled_seconds

    def beat(self) -> None:
        """Note that the loop turns."""
        self._last = self._now()

    async def keep_beating(self) -> None:
        """Beat for ever, in the event loop that is watched."""
        while True:
            self.beat()
            await asyncio.sleep(BEAT_SECONDS)


@contextmanager
def answering(listener: socket.socket | None, pages: Pages) -> Iterator[None]:
    """Answer at the listener while the block runs; do nothing without one."""
    if listener is None:
        yield
        return
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=_answer, args=(loop, listener, pages), name="admin", daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _answer(loop: asyncio.AbstractEventLoop, listener: socket.socket, pages: Pages) -> None:
    """Answer until the loop is stopped, and then disconnect all clients."""
    clients = _Clients(pages)
    server = loop.run_until_complete(loop.create_server(lambda: _Client(clients), sock=listener, backlog=BACKLOG))
    loop.run_forever()
    server.close()
    clients.end()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


class _Clients:
    """The connected clients, and their answers."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._clients: dict[_Client, None] = {}  # in order of arrival

    def enter(self, client: _Client) -> None:
        """Start serving a client that has connected."""
        if len(self._clients) >= MOST_CLIENTS:
            first = next(iter(self._clients))
            self.leave(first)
            first.end()
        self._clients[client] = None

    def leave(self, client: _Client) -> None:
        """Note that a client has gone."""
        self._clients.pop(client, None)

    def end(self) -> None:
        """Disconnect all clients."""
        for client in list(self._clients):
            client.end()

    def answer(self, method: bytes, target: bytes) -> Answer:
        """The page for a request."""
        page = self._pages.get(path(target))
        if page is None:
            return 404, JSON, error_body("no such path")
        if method not in (b"GET", b"HEAD"):
            return not_allowed("GET, HEAD")
        try:
            return page()
        except Exception as error:  # noqa: BLE001 - the edge: logged by type and place, answered as a 500
            return 500, JSON, error_body(failed(error).message)


class _Client(asyncio.Protocol):
    """One connection, which ends with its answer."""

    def __init__(self, clients: _Clients) -> None:
        self._clients = clients
        self._transport: asyncio.Transport
        self._timer = asyncio.get_running_loop().call_later(MOST_SECONDS, self.end)
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start serving the client, which has connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._clients.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the client has gone away."""
        self._timer.cancel()
        self._clients.leave(self)

    def data_received(self, data: bytes) -> None:
        """Take part of the request, and answer once it is whole."""
        if self._transport.is_closing():
            return
        self._head += data
        if _END_OF_HEAD in self._head:
            method, _, rest = self._head.partition(b"\r\n")[0].partition(b" ")
            answer = self._clients.answer(method, rest.partition(b" ")[0])
            self._send(answer, head_only=method == b"HEAD")
        elif len(self._head) > MOST_HEAD_BYTES:
            self._send((431, JSON, error_body(f"expected at most {MOST_HEAD_BYTES} bytes of headers")))

    def _send(self, answer: Answer, *, head_only: bool = False) -> None:
        self._transport.write(message(*answer, ends=True, head_only=head_only))
        self._transport.close()

    def end(self) -> None:
        """Disconnect the client at once."""
        self._transport.abort()
