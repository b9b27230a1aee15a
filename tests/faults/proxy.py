"""A TCP proxy between two services, which delays, cuts, slices or resets what goes through it."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_RESET = struct.pack("ii", 1, 0)


@dataclass
class Proxy:
    """Passes connections on to a port of this machine; its fields may be changed at any time.

    delay: seconds before each part of an answer. cut: how many bytes of answers a connection passes before it ends.
    refuse: whether a connection is reset by its first byte, unread. slices: how many bytes are sent at once.
    """

    upstream: int
    delay: float = 0.0
    cut: int | None = None
    refuse: bool = False
    slices: int = 65536
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _opened: set[socket.socket] = field(default_factory=set)
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self._listener.getsockname()[1]
        return port

    def heal(self) -> None:
        """Pass everything on from now on."""
        self.delay, self.cut, self.refuse, self.slices = 0.0, None, False, 65536

    def reset(self) -> None:
        """Reset every open connection."""
        for opened in list(self._opened):
            _reset(opened)

    def serve(self) -> None:
        """Accept connections until `end`."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def end(self) -> None:
        """Close everything."""
        self._over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset()

    def _serve(self, client: socket.socket) -> None:
        self._opened.add(client)
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self.upstream)) as server:
            threading.Thread(target=self._ask, args=(client, server), daemon=True).start()
            self._answer(client, server)
            _reset(client)
            _reset(server)
        self._opened.discard(client)

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if self.refuse:
                    break
                server.sendall(data)
            else:
                server.shutdown(socket.SHUT_WR)
                return
        _reset(client)
        _reset(server)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        passed = 0
        while data := server.recv(65536):
            self._over.wait(self.delay)
            data = data if self.cut is None else data[: max(0, self.cut - passed)]
            for at in range(0, len(data), self.slices):
                client.sendall(data[at : at + self.slices])
            passed += len(data)
            if self.cut is not None and passed >= self.cut:
                return


def _reset(opened: socket.socket) -> None:
    with suppress(OSError):
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        opened.shutdown(socket.SHUT_RDWR)
    opened.close()


@contextmanager
def proxied(upstream: int) -> Generator[Proxy]:
    """A proxy before a port, which ends with the block."""
    proxy = Proxy(upstream)
    thread = threading.Thread(target=proxy.serve)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.end()
        thread.join()
