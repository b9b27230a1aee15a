"""HTTP as bytes on a socket, for requests that no client library would send."""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Generator
from contextlib import contextmanager
from email import message_from_bytes

from tests.contract.target import Answer

TIMEOUT_SECONDS = 30.0
STUCK_SECONDS = 2.0

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)


@contextmanager
def connection(port: int) -> Generator[socket.socket]:
    """An open connection to a port of this machine."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as opened:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield opened


def answers(opened: socket.socket, count: int = 1) -> list[Answer]:
    """The next answers on a connection; fails if it is closed before."""
    found: list[Answer] = []
    received = b""
    while len(found) < count:
        head, end, body = received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if end and length and len(body) >= int(length[1]):
            status, _, headers = head.partition(b"\r\n")
            size = int(length[1])
            found.append(Answer(int(status.split()[1]), message_from_bytes(headers), body[:size]))
            received = body[size:]
        else:
            chunk = opened.recv(65536)
            assert chunk, f"closed after {len(found)} answers and {received[:500]!r}"
            received += chunk
    return found


def rest(opened: socket.socket) -> bytes:
    """Everything that arrives until the other side closes."""
    received = b""
    try:
        while chunk := opened.recv(65536):
            received += chunk
    except ConnectionResetError:
        return received
    return received


def exchange(port: int, data: bytes) -> bytes:
    """The whole answer to these bytes, until the other side closes by itself."""
    with connection(port) as opened:
        send(opened, data)
        return rest(opened)


def ask(port: int, data: bytes, count: int = 1) -> list[int]:
    """The statuses of `count` answers to these bytes on one connection."""
    with connection(port) as opened:
        send(opened, data)
        return [answer.status for answer in answers(opened, count)]


def send(opened: socket.socket, data: bytes) -> None:
    """Send what the other side takes; it may close before it has read everything."""
    try:
        opened.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return


def push(opened: socket.socket, data: bytes) -> int:
    """Send until the other side closes or takes no more for a while; the number of bytes it took."""
    opened.setblocking(False)
    sent = 0
    while sent < len(data) and select.select([], [opened], [], STUCK_SECONDS)[1]:
        try:
            sent += opened.send(data[sent : sent + 2**20])
        except (BrokenPipeError, ConnectionResetError):
            break
    return sent


def post(path: str, *headers: str, body: bytes = b"") -> bytes:
    """The bytes of a POST; Content-Length is sent only if it is among the headers."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def statuses(received: bytes) -> list[int]:
    """The statuses of the answers in what was received, one after the other."""
    return [int(status) for status in _STATUS.findall(received)]
