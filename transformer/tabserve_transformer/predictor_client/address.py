"""One address of the predictor, with its kept connections and what is known about it."""

from __future__ import annotations

import asyncio
import time

import msgspec

from tabserve.inference.deadlines import Deadlines
from tabserve.inference.errors import DeadlineExceeded
from tabserve_transformer.predictor_client.breaker import Breaker
from tabserve_transformer.predictor_client.connection import Connection, ConnectionLost, Response

CONNECT_SECONDS = 1.0
STALE_SECONDS = 1.0
"""How long a connection must have been idle for that to count as the reason why it ended."""


class Endpoint(msgspec.Struct, frozen=True):
    """Where a predictor listens: an IP address and a port."""

    host: str
    port: int


class Unreached(OSError):
    """The request was not started: nothing listens, or the connection was closed before the request was read."""


class Address:
    """Exchanges requests with one predictor.

    own: whether the predictor is of the transformer's release; None until it has answered. ready: whether it last said
    that it is. outstanding: requests under way.
    """

    def __init__(self, endpoint: Endpoint, max_bytes: int) -> None:
        self.endpoint = endpoint
        self.breaker = Breaker()
        self.own: bool | None = None
        self.ready = False
        self.outstanding = 0
        self._max_bytes = max_bytes
        self._deadlines = Deadlines()  # for all its connections, because each may end long before its last deadline
        self._kept: list[Connection] = []
        self._closed = False

    async def exchange(self, request: bytes, deadline: float) -> Response:
        """The answer to a whole HTTP request, before time.monotonic() reaches the deadline.

        Raises Unreached if no predictor can have started it, ConnectionLost if one may have, ResponseTooLarge,
        DeadlineExceeded.
        """
        connection = self._take_kept()
        idle = connection.idle_seconds if connection else 0.0
        self.outstanding += 1
        try:
            if connection is None:
                connection = await self._connect(deadline)
            response = await connection.exchange(request, deadline)
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

    def drop_kept(self) -> None:
        """Close the idle connections, for which a draining server would wait."""
        while self._kept:
            self._kept.pop().close()

    def close(self) -> None:
        """Close idle connections now, and the others when their requests are done."""
        self._closed = True
        self.drop_kept()

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
                    lambda: Connection(self._max_bytes, self._deadlines), endpoint.host, endpoint.port
                )
        except OSError as error:  # including TimeoutError
            if isinstance(error, TimeoutError) and left < CONNECT_SECONDS:
                raise DeadlineExceeded("the deadline passed before there was a connection") from error
            raise Unreached("no connection") from error
        return connection
