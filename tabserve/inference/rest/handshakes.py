"""Accept connections with TLS, each of which is a client that counts and can be ended before it has shaken hands."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from contextlib import suppress

from tabserve.inference.logs import limited
from tabserve.inference.rest.clients import Clients
from tabserve.inference.rest.connection import Connection
from tabserve.inference.tls import HANDSHAKE_SECONDS, Identity, Reread

PAUSE_SECONDS = 0.1
"""How long nothing is accepted after that has failed, because there are too many open files."""

logger = logging.getLogger(__name__)


class Handshakes:
    """Accepts connections at a listening socket until it is closed."""

    def __init__(self, listener: socket.socket, clients: Clients, tls: Reread[Identity]) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._clients = clients
        self._tls = tls
        self._under_way: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept())

    def close(self) -> None:
        """Accept no more; what has been accepted goes on."""
        self._accepting.cancel()
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                limited.tell(logger, logging.ERROR, "accept_failed", f"cannot accept connections: {error}")
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            task = asyncio.create_task(_Handshake(accepted).run(self._clients, self._tls.current().context))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)


class _Secure(Connection):
    """A connection with TLS, which takes the place of its handshake among the clients."""

    def __init__(self, clients: Clients, handshake: _Handshake) -> None:
        super().__init__(clients)
        self._handshake = handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start serving a client that has shaken hands."""
        self._clients.leave(self._handshake)
        super().connection_made(transport)

    def close(self) -> None:
        """Tell the client that this is the end, and do not wait for its own word, which it may never send."""
        super().close()
        if not self._transport.get_write_buffer_size():
            self._transport.abort()


class _Handshake:
    """A client that has connected and not shaken hands yet."""

    busy = False

    def __init__(self, accepted: socket.socket) -> None:
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = accepted

    async def run(self, clients: Clients, context: ssl.SSLContext) -> None:
        """Shake hands, after which the client is a Connection, or end it."""
        clients.join(self)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Secure(clients, self), self._socket, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except OSError as error:  # including ssl.SSLError
            why = getattr(error, "reason", None) or type(error).__name__
            message = f"a client did not shake hands: {why}"
            limited.tell(logger, logging.WARNING, "handshake_failed", message, reason=why)
        finally:
            clients.leave(self)

    def time_out(self) -> None:
        """Do nothing, because the handshake has a time of its own."""

    def shutdown(self) -> None:
        """Do nothing, because a request may follow."""

    def close(self) -> None:
        """End the connection now."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    abort = close
