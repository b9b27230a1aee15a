"""A client's connection: HTTP/1.1, parsed by httptools, with limits on headers, bodies and time, and JSON errors.

A request is handed to the application when it is whole. Its answer is computed without a task of its own: what a task
costs is a good part of what a small answer costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from time import perf_counter
from typing import Any, cast

import httptools

from tabserve.inference.admission import Admission
from tabserve.inference.rest.application import JSON, Answer, Application, Request, error_body, failed, message
from tabserve.inference.settings import ServerSettings

SWEEP_SECONDS = 1.0
FIRST_SECONDS = 2.0
"""How long a server that stops waits for the first request of a client that has just connected."""
LINGER_SECONDS = 2.0
"""How long a request that is answered may go on coming, so that its client can read the answer (RFC 9112, 9.6)."""
MOST_UNREAD_BYTES = 65536
"""Of a request that waits for a place."""

_END_OF_HEADERS = b"\r\n\r\n"
_NO_HEADERS: dict[bytes, bytes] = {}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Clients:
    """What the connections of one server share."""

    def __init__(self, application: Application, admission: Admission, settings: ServerSettings) -> None:
        self.application = application
        self.admission = admission
        self.settings = settings
        self.connections: set[Connection] = set()
        self.working = 0  # requests that the application has begun to answer
        self.answered = 0
        self.leaving = False  # every answer ends its connection, so that clients go elsewhere for the next

    async def sweep(self) -> None:
        """Forever end connections whose request has been coming for too long, and read those left unread for long."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.admission.resume_late()
            for connection in list(self.connections):
                connection.time_out(loop.time())


class Connection(asyncio.Protocol):
    """Ends a connection whose request is malformed (400), has too long headers (431) or is too slow (408).

    Requests that come before the one before them is answered (pipelining) are answered in their order.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._admission = clients.admission
        self._settings = clients.settings
        self._loop = asyncio.get_running_loop()
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._until: float | None = self._loop.time() + self._settings.read_timeout  # when what is awaited is too late
        self._idle = False  # what is awaited is another request
        self._ordinal = 0  # of its last answer among the server's
        self._paused = self._write_paused = False
        self._asked = False  # whether any request's headers have come

        self._request: Request | None = None  # that comes
        self._headers = _NO_HEADERS  # of it
        self._in_headers = True  # what comes next is of the headers
        self._header_bytes = 0
        self._tail = b""
        self._url = b""
        self._chunks: list[bytes] = []
        self._size = 0
        self._owed = 0  # bytes of a body that httptools leaves unread
        self._turned_away = False  # the request that comes is to be refused
        self._unread = b""  # what has come of a request that waits for a place, or for its refusal
        self._waited = 0.0  # seconds for which it did

        self._queue: list[Request] = []  # that are whole, or answered already, in their order
        self._worked_on: Request | None = None
        self._work: Coroutine[Any, Any, Answer] | None = None
        self._waits_for: asyncio.Future[Any] | None = None  # before the work can go on

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._clients.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone away: what answers it is cancelled.

        And what leads back here is let go: what has lived long, the garbage collector would keep for long.
        """
        self._clients.connections.discard(self)
        self._admission.forget(self)
        waits_for, self._waits_for = self._waits_for, None
        if waits_for is not None:
            waits_for.cancel()
        self._queue.clear()
        self._parser = self._request = None

    def data_received(self, data: bytes) -> None:
        """Read what came, or leave it unread until its request gets a place; health and metadata never wait."""
        if self._unread:
            self._unread += data
            if len(self._unread) > MOST_UNREAD_BYTES:
                self._pause_reading()
        elif not (self._admission.crowded and self._begins() and data.startswith(b"POST ")):
            self._read(data)
        elif self._admission.wait(self):
            self._unread = data
            self._until = None
        else:
            self._turned_away = True
            self._read(data)
            self._turned_away = False

    def _begins(self) -> bool:
        """Whether what comes is the beginning of a request, and no other is under way."""
        return self._request is None and self._worked_on is None and not self._queue

    def resume(self, waited: float) -> None:
        """Read what was left unread."""
        self._resume_reading()
        self._waited = waited
        unread, self._unread = self._unread, b""
        self._read(unread)

    def _read(self, data: bytes) -> None:
        """Parse what came, unless the headers in it are too long; the parser would keep them all."""
        if self._in_headers and self._too_long(data):
            self._refuse(431, f"expected at most {self._settings.max_header_bytes} bytes of headers")
            return
        try:
            self._parse(data)
        except httptools.HttpParserCallbackError as error:
            self._refuse(500, failed(error.__context__ or error).message)
            return
        except httptools.HttpParserError:
            self._refuse(400, "this is no HTTP request that can be read")
            return
        if self._in_headers and self._request is not None:
            last = data.rfind(_END_OF_HEADERS)
            self._header_bytes += len(data) if last < 0 else len(data) - last - len(_END_OF_HEADERS)
            self._tail = data[-3:]
        self._go_on()

    def _parse(self, data: bytes) -> None:
        """Offers to go on in another protocol, as Java's client makes, are not taken (RFC 9110, section 7.8).

        httptools takes each for the end of its message; a body behind it is read here.
        """
        while data:
            if self._owed:
                piece, data = data[: self._owed], data[self._owed :]
                self._owed -= len(piece)
                self.on_body(piece)
                if not self._owed:
                    self._complete()
                continue
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                data = data[offer.args[0] :]

    def _too_long(self, data: bytes) -> bool:
        if self._header_bytes + len(data) <= self._settings.max_header_bytes:
            return False
        end = (self._tail + data).find(_END_OF_HEADERS)
        return self._header_bytes + (len(data) if end < 0 else end) > self._settings.max_header_bytes

    def on_message_begin(self) -> None:
        """A request begins (httptools)."""
        self._request = Request()
        self._headers = self._request.headers
        self._idle = False
        self._until = self._loop.time() + self._settings.read_timeout

    def on_url(self, url: bytes) -> None:
        """Some of the request's target (httptools)."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header (httptools)."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The headers are read (httptools); they may be enough to answer."""
        request = self._request
        assert request is not None
        self._in_headers, self._asked = False, True
        self._header_bytes, self._tail = 0, b""
        request.path, self._url = path(self._url), b""
        request.method = self._parser.get_method()
        request.keep_alive = self._parser.should_keep_alive() and self._parser.get_http_version() == "1.1"
        request.waited, self._waited = self._waited, 0.0
        request.since = perf_counter() - request.waited
        unplaced = self._turned_away or self._admission.full
        answer = self._clients.application.admit(request, unplaced=unplaced)
        if answer is not None:
            self._answer_early(request, answer)
        elif request.headers.get(b"expect", b"").lower() == b"100-continue" and self._worked_on is None:
            self._transport.write(_CONTINUE)

    def _answer_early(self, request: Request, answer: Answer) -> None:
        """What is still to come of the request is thrown away, and must come soon."""
        request.answer = answer
        self._queue.append(request)
        if self._until is not None:
            self._until = min(self._until, self._loop.time() + LINGER_SECONDS)

    def on_body(self, body: bytes) -> None:
        """Some of the body (httptools)."""
        request = self._request
        assert request is not None
        if request.answer is not None:
            return
        self._size += len(body)
        if self._size > self._settings.max_body_bytes:
            self._answer_early(request, self._clients.application.too_large(request))
        else:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        """The request is read (httptools), unless it was an offer of another protocol with a body."""
        if self._parser.should_upgrade():
            self._owed = int(self._headers.get(b"content-length", b"0"))
        if not self._owed:
            self._complete()

    def _complete(self) -> None:
        """What comes next is another request's headers."""
        request = self._request
        assert request is not None
        self._request, self._headers, self._in_headers, self._until = None, _NO_HEADERS, True, None
        chunks, self._chunks, self._size = self._chunks, [], 0
        if request.answer is None:
            request.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self._queue.append(request)

    def _go_on(self) -> None:
        """Answer what has come, one request after the other, as fast as the client reads."""
        while self._queue and self._worked_on is None and not self._write_paused:
            request = self._queue.pop(0)
            if request.answer is None:
                self._begin(request)
            else:
                self._send(request, request.answer)
        if self._transport.is_closing():
            return
        if self._queue:
            self._pause_reading()
        elif self._worked_on is None:
            self._resume_reading()
            if self._request is None:
                self._idle = True
                self._until = self._loop.time() + self._settings.keep_alive

    def _begin(self, request: Request) -> None:
        """Take the first steps to an answer; `alone` where no other client is asking, so no other request comes now."""
        clients = self._clients
        request.alone = clients.working == 0 and self._ordinal == clients.answered
        clients.working += 1
        self._worked_on, self._work = request, clients.application.answer(request)
        self._step()

    def _step(self, *, cancelled: bool = False) -> None:
        """The next steps, up to the answer or to a future that they wait for; whatever goes wrong, there is an answer.

        cancelled: whether the client has gone away since the last ones.
        """
        request, work = self._worked_on, self._work
        assert request is not None
        assert work is not None
        try:
            self._wait_for(work.throw(asyncio.CancelledError()) if cancelled else work.send(None))
        except StopIteration as end:
            self._end()
            self._send(request, end.value)
        except (asyncio.CancelledError, Exception) as error:  # noqa: BLE001 - the edge: logged, answered as a 500
            self._end()
            work.close()
            if not self._transport.is_closing():  # the client has not gone away
                self._send(request, self._clients.application.failure(error, request))

    def _wait_for(self, awaited: asyncio.Future[Any] | None) -> None:
        """Go on when it is done. None, as of asyncio.sleep(0), asks for the next turn of the event loop."""
        if awaited is None:
            awaited = self._loop.create_future()
            self._loop.call_soon(_finish, awaited)
        awaited.add_done_callback(self._step_on)
        self._waits_for = awaited

    def _step_on(self, _: asyncio.Future[Any]) -> None:
        self._step(cancelled=self._waits_for is None)
        self._go_on()

    def _end(self) -> None:
        self._clients.working -= 1
        self._worked_on = self._work = self._waits_for = None

    def _send(self, request: Request, answer: Answer) -> None:
        """In one write: a system call is a good part of what a small answer costs."""
        if self._transport.is_closing():
            return
        ends = self._clients.leaving or not request.keep_alive
        self._transport.write(message(*answer, ends=ends, head_only=request.method == b"HEAD"))
        self._clients.answered += 1
        self._ordinal = self._clients.answered
        if ends:
            self._queue.clear()
            self._transport.close()

    def pause_writing(self) -> None:
        """The client does not read its answers."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """It does again."""
        self._write_paused = False
        self._go_on()

    def _pause_reading(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def shutdown(self) -> None:
        """The server stops: end the connection, after the answer if there is a request or the first is on its way."""
        if self._unread:
            self._admission.resume(self)
        if self._worked_on is not None or self._queue or not self._in_headers:
            return  # the answer ends it
        if self._asked:
            self._transport.close()
        else:
            self._idle = self._request is None
            self._until = self._loop.time() + FIRST_SECONDS

    def time_out(self, now: float) -> None:
        """Close if the request under way takes too long to come, with 408 if nothing was answered, or none comes."""
        if self._until is None or now < self._until or self._transport.is_closing():
            return
        if self._idle:
            self._transport.close()
        else:
            self._refuse(408, "the request took too long to arrive")

    def _refuse(self, status: int, text: str) -> None:
        """Answer what comes, unless it is answered already, and close."""
        if self._transport.is_closing():
            return
        if self._request is not None and self._request.answer is not None:
            self._transport.close()
        else:
            self._queue.append(Request(keep_alive=False, answer=(status, JSON, error_body(text))))
            self._go_on()


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def path(target: bytes) -> bytes:
    """The path of a request's target, without its query (RFC 9112, section 3.2); empty where it has none."""
    if not target.startswith(b"/"):
        try:
            target = httptools.parse_url(target).path or b""
        except httptools.HttpParserInvalidURLError:
            return b""
    return target.partition(b"?")[0]
