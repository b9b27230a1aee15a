"""One address of the predictor, with its kept connections and what is known about it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import msgspec

from tabserve.inference.deadlines import Deadlines
from tabserve.inference.errors import DeadlineExceeded
from tabserve_transformer.predictor_client.breaker import Breaker
from tabserve_transformer.predictor_client.connection import Connection, ConnectionLost, Response

CONNECT_SECONDS = 1.0
STALE_SECONDS = 1.0
"""How long a connection must have been idle for that to count as the reason why it ended."""
SILENT_SECONDS = 0.25
"""After how long without an answer to anything an address gets no more requests, if another one answers."""


class Endpoint(msgspec.Struct, frozen=True):
    """Where a predictor listens: an IP address and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Unreached(OSError):
    """The request was not started: nothing listens, or the connection was closed before the request was read."""


class Address:
    """Exchanges requests with one predictor.

    own: whether the predictor is of the transformer's release; None until it has answered. ready: whether it last said
    that it is. trouble: why a probe found it not ready: `lost`, `hung` or `unready`. outstanding: requests under way.
    probe: the last probe. secure: what `create_connection` takes for TLS.
    """

    def __init__(self, endpoint: Endpoint, max_bytes: int, secure: Callable[[], dict[str, Any]] = dict) -> None:
        self.endpoint = endpoint
        self.breaker = Breaker()
        self.own: bool | None = None
        self.ready = False
        self.trouble = "lost"
        self.outstanding = 0
        self.probe: asyncio.Task[None] | None = None
        self._unheard_since = math.inf
        self._max_bytes = max_bytes
        self._secure = secure
        self._deadlines = Deadlines()  # for all its connections, because each may end long before its last deadline
        self._kept: list[Connection] = []
        self._closed = False

    async def exchange(self, request: bytes, deadline: float) -> Response:
        """The answer to a whole HTTP request, before time.monotonic() reaches the deadline.

        Raises Unreached if no predictor can have started it, ConnectionLost if one may have, ResponseTooLarge,
        DeadlineExceeded.
        """
        if self._unheard_since == math.inf:
            self._unheard_since = time.monotonic()
        connection = self._take_kept()
        idle = connection.idle_seconds if connection else 0.0
        self.outstanding += 1
        try:
            if connection is None:
                connection = await self._connect(deadline)
            response = await connection.exchange(request, deadline)
            self._unheard_since = time.monotonic() if self.outstanding > 1 else math.inf
        except ConnectionLost as error:
            # A server may end an idle connection just as the request is sent (RFC 9112, section 9.5). One that ends
            # a busy connection may have died of this very request, which must not reach another.
            self.drop_kept()
            if error.unread or (idle >= STALE_SECONDS and not error.begun):
                raise Unreached("the connection was closed before the request was read") from error
            raise
        finally:
            self.outstanding -= 1
        if self._closed:
            connection.close()
        elif connection.usable:
            self._kept.append(connection)
        return response

    def is_silent(self, now: float) -> bool:
        """Whether nothing asked of this address has been answered for a while."""
        return now - self._unheard_since > SILENT_SECONDS

    def drop_kept(self) -> None:
        """Close the idle connections, for which a draining server would wait."""
        while self._kept:
            self._kept.pop().close()

    def close(self) -> None:
        """Close idle connections now, and the others when their requests are done."""
        self._closed = True
        self.drop_kept()
        if self.probe is not None:
            self.probe.cancel()

    def _take_kept(self) -> Connection | None:
        while self._kept:
            connection = self._kept.pop()
            if connection.usable:
                return connection
            connection.close()
        return None

    async def _connect(self, deadline: float) -> Connection:
        loop, endpoint = asyncio.get_running_loop(), self.endpoint
        left = deadline - time.monotonic()
        try:
            async with asyncio.timeout(min(left, CONNECT_SECONDS)):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._max_bytes, self._deadlines), endpoint.host, endpoint.port, **self._secure()
                )
        except OSError as error:  # including TimeoutError
            if isinstance(error, TimeoutError) and left < CONNECT_SECONDS:
                raise DeadlineExceeded("the deadline passed before there was a connection") from error
            raise Unreached("no connection") from error
        return connection
