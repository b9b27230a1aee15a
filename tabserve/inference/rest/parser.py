"""Parse a connection's bytes into HTTP/1.1 requests with httptools, with limits on headers, bodies and framing."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Protocol

import httptools
import msgspec

from tabserve.inference.memory import Share

_END_OF_HEADERS = b"\r\n\r\n"
_STAND_IN = b"POST / HTTP/1.1\r\n%b: %b\r\n\r\n"
_FRAMING = (b"transfer-encoding", b"content-length")
# RFC 9112, section 3.2, with RFC 3986, section 3.2.2: a name or an IPv6 address, and a port.
_HOST = re.compile(rb"([\w.~%!$&'()*+,;=-]*|\[[0-9A-Fa-f:.]+\])(:\d*)?", re.ASCII)


class Request(msgspec.Struct, gc=False):
    """A request, with header names in lower case, and values of the same name joined by commas (RFC 9110, section 5.3).

    path: without the query. keep_alive: whether its client may ask again on the connection. since: the
    time.perf_counter() at its arrival. waited: seconds for which it was left unread. alone: whether no other client is
    asking. size: bytes that the body may have. memory: its share, if it may be large.
    """

    method: bytes = b""
    path: bytes = b""
    headers: dict[bytes, bytes] = {}
    body: bytes = b""
    keep_alive: bool = True
    since: float = 0.0
    waited: float = 0.0
    alone: bool = False
    size: int = 0
    memory: Share | None = None


class MalformedError(Exception):
    """The data can't be parsed further; holds the status and the text to answer with."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Reader(Protocol):
    """The receiver of a parser's events."""

    def begun(self) -> None:
        """Note that a request begins."""

    def headers_read(self, request: Request) -> bool:
        """Take a request's headers; returns whether to keep the body."""

    def too_large(self, request: Request) -> None:
        """Note that the body is over the limit; the rest of it is discarded."""

    def read(self, request: Request, *, kept: bool) -> None:
        """Take a whole request. kept: whether its body was kept."""


class Parser:
    """Parses one request after the other. Trailers are discarded (RFC 9110, section 6.5.1)."""

    def __init__(self, reader: Reader, max_header_bytes: int, max_body_bytes: int) -> None:
        self._reader = reader
        self._max_body_bytes = max_body_bytes
        self._limits = _Limits(max_header_bytes)
        self._http: Any = httptools.HttpRequestParser(self)
        self._standing_in = False  # whether the parsed headers only make httptools read a body
        self._request: Request | None = None
        self._kept = False
        self._in_headers = True
        self._headers: dict[bytes, bytes] = {}
        self._url = b""
        self._body: bytes | bytearray = b""

    @property
    def under_way(self) -> bool:
        """Whether part of a request has arrived."""
        return self._request is not None

    @property
    def in_body(self) -> bool:
        """Whether a request's headers have arrived, but not all of its body."""
        return not self._in_headers

    @property
    def discards(self) -> bool:
        """Whether the arriving data belongs to a request that is already answered."""
        return not self._in_headers and not self._kept

    def discard(self) -> None:
        """Discard the body, both what has arrived and the rest."""
        self._kept, self._body = False, b""

    def feed(self, data: bytes) -> None:
        """Parse the data. Raises MalformedError, and whatever the reader raises."""
        if self._in_headers and len(data) > self._limits.left:
            self._limits.check_headers(data)
        request = None if self._in_headers else self._request
        try:
            self._parse(data)
        except httptools.HttpParserCallbackError as error:
            raise error.__context__ or error from None
        except httptools.HttpParserError:
            raise MalformedError(400, "malformed HTTP request") from None
        if self._in_headers and self._request is not None:
            self._limits.count_headers(data)
        elif request is not None and request is self._request:
            self._limits.count_framing(len(data))

    def end(self) -> None:
        """Drop the reader, the request, and httptools' parser, which refers back to this object.

        The garbage collector does not see through a Request, so no cycle of references may go through one.
        """
        del self._reader, self._http
        self._request = None
        self.discard()

    def _parse(self, data: bytes) -> None:
        """Parse data, and ignore offers to switch to another protocol, as from Java's client (RFC 9110, section 7.8).

        httptools takes such an offer for the end of its message. Another parser reads the body that follows it.
        """
        while data:
            try:
                self._http.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                data = data[offer.args[0] :]
                if self._request is not None:
                    self._stand_in(self._request.headers)

    def _stand_in(self, headers: dict[bytes, bytes]) -> None:
        self._http, self._standing_in = httptools.HttpRequestParser(self), True
        name = next(name for name in _FRAMING if name in headers)
        self._http.feed_data(_STAND_IN % (name, headers[name]))

    def on_message_begin(self) -> None:
        """Begin a request (httptools)."""
        if not self._standing_in:
            self._headers = {}
            self._request = Request(headers=self._headers)
            self._reader.begun()

    def on_url(self, url: bytes) -> None:
        """Take part of the request's target (httptools)."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header, or a trailer field (httptools)."""
        if not self._in_headers:
            return
        name, headers = name.lower(), self._headers
        headers[name] = headers[name] + b", " + value if name in headers else value

    def on_headers_complete(self) -> None:
        """Use the headers, which are complete (httptools)."""
        request = self._request
        if self._standing_in or request is None:
            self._standing_in, self._url = False, b""
            return
        request.method = self._http.get_method()
        request.path, self._url = path(self._url), b""
        version = self._http.get_http_version()
        _check_head(request.headers, version)
        request.keep_alive = version == "1.1" and self._http.should_keep_alive()
        self._in_headers = False
        self._limits.reset()
        self._kept = self._reader.headers_read(request)

    def on_body(self, body: bytes) -> None:
        """Take part of the body (httptools)."""
        self._limits.delivered += 2 * len(body)  # the framing of chunks may be as long as the body
        if not self._kept:
            return
        if len(self._body) + len(body) > self._max_body_bytes:
            assert self._request is not None
            self.discard()
            self._reader.too_large(self._request)
        elif not self._body:
            self._body = body
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += body

    def on_message_complete(self) -> None:
        """End the request (httptools), unless it was an offer of another protocol with a body."""
        request = self._request
        assert request is not None
        if self._http.should_upgrade() and any(name in request.headers for name in _FRAMING):
            return
        self._request, self._in_headers = None, True
        request.body, self._body = bytes(self._body), b""
        if self._limits.left < self._limits.most:
            self._limits.reset()
        self._reader.read(request, kept=self._kept)


class _Limits:
    """Limits on bytes outside bodies: framing, and headers, all of which httptools would keep."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.reset()

    def reset(self) -> None:
        """Start counting again, for other headers or a body."""
        self.left, self.delivered = self.most, 0
        self._tail = b""

    def check_headers(self, data: bytes) -> None:
        """Raise MalformedError if the headers in the data are too long."""
        end = (self._tail + data).find(_END_OF_HEADERS)
        if (len(data) if end < 0 else end) > self.left:
            raise MalformedError(431, f"expected at most {self.most} bytes of headers")

    def count_headers(self, data: bytes) -> None:
        """Count data that holds no end of the headers."""
        last = data.rfind(_END_OF_HEADERS)
        self.left -= len(data) if last < 0 else len(data) - last - len(_END_OF_HEADERS)
        self._tail = data[-3:]

    def count_framing(self, size: int) -> None:
        """Count `size` bytes that arrived within a body. Raises MalformedError if too few of them were content."""
        self.left -= max(0, size - self.delivered)
        self.delivered = 0
        if self.left < 0:
            raise MalformedError(431, f"expected at most {self.most} bytes of trailers and chunk extensions")


def _check_head(headers: dict[bytes, bytes], version: str) -> None:
    """Raise MalformedError if a request can't be read further; drop what HTTP/1.0 must not ask for."""
    if version not in ("1.1", "1.0"):
        raise MalformedError(505, "expected HTTP/1.1 or HTTP/1.0")
    host = headers.get(b"host")
    if host is None and version == "1.1":
        raise MalformedError(400, "host: expected one, got none")
    if host is not None and not _is_host(host):
        raise MalformedError(400, "host: expected one name or address, and a port")
    if b"transfer-encoding" in headers and headers[b"transfer-encoding"].lower() != b"chunked":
        raise MalformedError(501, "transfer-encoding: expected only chunked")
    if version == "1.0":
        headers.pop(b"expect", None)  # RFC 9110, section 10.1.1


@lru_cache(maxsize=16)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def path(target: bytes) -> bytes:
    """The path of a request's target, without its query (RFC 9112, section 3.2); empty if it has none."""
    if not target.startswith(b"/"):
        try:
            target = httptools.parse_url(target).path or b""
        except httptools.HttpParserInvalidURLError:
            return b""
    return target.partition(b"?")[0]
