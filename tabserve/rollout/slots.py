"""Ask a slot what a copy of a request asked, on a kept connection, within a time."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection

from tabserve.client.address import Address
from tabserve.inference.arms import ARM, SHADOW
from tabserve.inference.deadlines import TIMEOUT
from tabserve.rollout import answers
from tabserve.rollout.answers import Rows
from tabserve.rollout.compare import Answer

MOST_ANSWER_BYTES = 4 << 20
"""The longest answer that is read."""
MOST_QUESTIONS = 50
"""After so many a connection is renewed, so that all pods of a slot are asked."""
_JSON_SIZE = "inference-header-content-length"
_OURS = {
    *("host", "connection", "keep-alive", "transfer-encoding", "content-length", "expect", "upgrade", "te", "trailer"),
    *(ARM, SHADOW, TIMEOUT, "traceparent", "tracestate", "accept-encoding"),
}
"""Headers of a copy that are not passed on."""


class Copy:
    """A copy of a request: its path, the headers that are passed on, and its body."""

    def __init__(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        self.path, self.body = path, body
        self.headers = {name: value for name, value in headers.items() if name not in _OURS} | {SHADOW: "1"}


class Slot:
    """A slot, for one thread at a time. tls: for https, None for the usual authorities."""

    def __init__(self, address: Address, timeout: float, tls: ssl.SSLContext | None = None) -> None:
        self._address, self._timeout = address, timeout
        self._tls = tls or (ssl.create_default_context() if address.secure else None)
        self._connection: HTTPConnection | None = None
        self._asked = 0

    def ask(self, copy: Copy) -> Answer:
        """The answer to a copy; whatever goes wrong is an answer too, without a status."""
        start = time.perf_counter()
        headers = copy.headers | {TIMEOUT: str(round(self._timeout * 1000))}
        try:
            response, body = self._exchange(copy, headers)
        except (OSError, HTTPException):
            self.close()
            return Answer(0, time.perf_counter() - start)
        seconds = time.perf_counter() - start
        good = response.status == 200 and len(body) <= MOST_ANSWER_BYTES
        return Answer(response.status, seconds, _rows(copy.path, body, response) if good else None)

    def _exchange(self, copy: Copy, headers: dict[str, str]) -> tuple[HTTPResponse, bytes]:
        if self._asked >= MOST_QUESTIONS:
            self.close()
        if self._connection is not None:
            self._asked += 1
            try:
                return self._asking(self._connection, copy, headers)
            except (ConnectionError, HTTPException):  # a server may close a kept connection while it is idle
                self.close()
        self._connection, self._asked = self._open(), 1
        return self._asking(self._connection, copy, headers)

    def _asking(self, connection: HTTPConnection, copy: Copy, headers: dict[str, str]) -> tuple[HTTPResponse, bytes]:
        connection.request("POST", self._address.prefix + copy.path, copy.body, headers)
        response = connection.getresponse()
        body = response.read(MOST_ANSWER_BYTES + 1)
        if len(body) > MOST_ANSWER_BYTES:
            self.close()
        return response, body

    def _open(self) -> HTTPConnection:
        host, port = self._address.host, self._address.port
        if self._tls is None:
            return HTTPConnection(host, port, timeout=self._timeout)
        return HTTPSConnection(host, port, timeout=self._timeout, context=self._tls)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _rows(path: str, body: bytes, response: HTTPResponse) -> Rows | None:
    if path.endswith(":predict"):
        return answers.predictions(body)
    return answers.outputs(body, response.getheader(_JSON_SIZE))
