"""A kept HTTP/1.1 connection, which sends encoded requests and does little else, because its own time would count."""

from __future__ import annotations

import gevent.socket
import gevent.ssl
import httptools

from tabserve_loadtest.answers import Answer
from tabserve_loadtest.target import Target

CHUNK = 65536


class HttpConnection:
    """Sends requests to one target, one at a time; connects when first used, and again when the server has closed."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._socket: gevent.socket.socket | None = None

    def ask(self, request: bytes) -> Answer:
        """Send a request and read its answer.

        If the server has closed the kept connection meanwhile, the request is sent once more on a new one. Raises
        TimeoutError, OSError, httptools.HttpParserError.
        """
        kept = self._socket is not None
        try:
            return self._exchange(request, kept)
        except _Closed:
            return self._exchange(request, False)
        except BaseException:
            self.close()
            raise

    def _exchange(self, request: bytes, kept: bool) -> Answer:
        connection = self._socket or self._connect()
        answer = _Reader()
        try:
            connection.sendall(request)
            data = connection.recv(CHUNK)
        except (ConnectionResetError, BrokenPipeError):
            data = b""
        if not data:
            self.close()
            raise _Closed if kept else ConnectionResetError("closed without an answer")
        answer.feed(data)
        while not answer.complete:
            data = connection.recv(CHUNK)
            if not data:
                raise ConnectionResetError("closed in the middle of an answer")
            answer.feed(data)
        if not answer.keep:
            self.close()
        return Answer(answer.status, answer.headers, b"".join(answer.parts))

    def _connect(self) -> gevent.socket.socket:
        target = self._target
        connection = gevent.socket.create_connection(target.address, timeout=target.timeout)
        connection.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
        if target.tls:
            context = gevent.ssl.create_default_context()
            connection = context.wrap_socket(connection, server_hostname=target.authority.rpartition(":")[0] or None)
        self._socket = connection
        return connection

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class _Closed(Exception):
    """The server closed a kept connection before it answered anything."""


class _Reader:
    """Gathers what httptools' parser finds, in methods that have the parser's names."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.parts: list[bytes] = []
        self.complete = False
        self.keep = False
        self.status = 0
        self._parser = httptools.HttpResponseParser(self)
        self.feed = self._parser.feed_data

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self.parts.append(data)

    def on_message_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.keep = self._parser.should_keep_alive()
        self.complete = True
