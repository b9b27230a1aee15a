"""A client's connection: what comes is read, or left unread, and what takes too long is given up."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import cast

from tabserve.inference.admission import Admission
from tabserve.inference.rest.answers import Answers, Load
from tabserve.inference.rest.application import Application, error_body, failed
from tabserve.inference.rest.pages import JSON
from tabserve.inference.rest.parser import MalformedError, Parser, Request
from tabserve.inference.rest.patience import Patience
from tabserve.inference.settings import ServerSettings

SWEEP_SECONDS = 1.0
MOST_UNREAD_BYTES = 65536
"""How much of a request that waits for a place is kept."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Clients:
    """What the connections of one server share."""

    def __init__(self, application: Application, admission: Admission, settings: ServerSettings) -> None:
        self.application = application
        self.admission = admission
        self.settings = settings
        self.connections: set[Connection] = set()
        self.load = Load()
        self.now = asyncio.get_running_loop().time

    async def sweep(self) -> None:
        """Forever end connections whose request has been coming for too long, and read those left unread for long."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.admission.resume_late()
            for connection in list(self.connections):
                connection.time_out()


class Connection(asyncio.Protocol):
    """Ends a connection whose request is malformed (400), has too long headers (431) or is too slow (408).

    Requests that come before the one before them is answered (pipelining) are answered in their order.
    """

    def __init__(self, clients: Clients) -> None:
        settings = clients.settings
        self._clients = clients
        self._transport: asyncio.Transport
        self._parser: Parser | None = Parser(self, settings.max_header_bytes, settings.max_body_bytes)
        self._answers = Answers(clients.application, clients.load, self._go_on)
        self._patience = Patience(settings, clients.now)
        self._asked = False  # whether any request has come
        self._paused = False
        self._unread = b""  # what has come of a request that waits for a place, or for its refusal
        self._waited = 0.0  # seconds for which it did

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._answers.start(self._transport)
        self._clients.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone away.

        What leads back here is let go: what has lived long, the garbage collector would keep for long.
        """
        self._clients.connections.discard(self)
        self._clients.admission.forget(self)
        self._answers.end()
        if self._parser is not None:
            self._parser.end()
            self._parser = None

    def data_received(self, data: bytes) -> None:
        """Read what came, or leave it unread until its request gets a place; health and metadata never wait."""
        admission = self._clients.admission
        if self._unread:
            self._unread += data
            if len(self._unread) > MOST_UNREAD_BYTES:
                self._pause_reading()
        elif not (admission.crowded and self._begins() and data.startswith(b"POST ")):
            self._read(data)
        else:
            admission.wait(self)
            self._unread = data
            self._patience.for_nothing()

    def _begins(self) -> bool:
        """Whether what comes is the beginning of a request, and no other is under way."""
        return self._parser is not None and not self._parser.under_way and not self._answers.busy

    def resume(self, waited: float) -> None:
        """Read what was left unread."""
        self._resume_reading()
        self._waited = waited
        unread, self._unread = self._unread, b""
        self._read(unread)

    def _read(self, data: bytes) -> None:
        if self._parser is None or self._transport.is_closing():
            return
        try:
            self._parser.feed(data)
        except MalformedError as error:
            self._refuse(error.status, str(error))
        except Exception as error:  # noqa: BLE001 - the edge: logged by type and place, answered as a 500
            self._refuse(500, failed(error).message)
        else:
            self._answers.go_on()
            self._go_on()

    def begun(self) -> None:
        """A request begins."""
        self._asked = True
        self._patience.for_request()

    def headers_read(self, request: Request) -> bool:
        """The headers have come: they may be enough to answer."""
        clients = self._clients
        request.waited, self._waited = self._waited, 0.0
        request.since = perf_counter() - request.waited
        answer = clients.application.admit(request, unplaced=clients.admission.full)
        if answer is not None:
            self._answers.put(request, answer)
            self._patience.for_rest()
            return False
        if request.headers.get(b"expect", b"").lower() == b"100-continue" and not self._answers.busy:
            self._transport.write(_CONTINUE)
        return True

    def too_large(self, request: Request) -> None:
        """The body is over the limit."""
        self._answers.put(request, self._clients.application.too_large(request))
        self._patience.for_rest()

    def read(self, request: Request, *, kept: bool) -> None:
        """The request is whole."""
        self._patience.for_nothing()
        if kept:
            self._answers.put(request)

    def _go_on(self) -> None:
        """Read on once what came is answered, and from then on wait for another request."""
        if self._parser is None or self._transport.is_closing():
            return
        if self._answers.waiting:
            self._pause_reading()
        elif not self._answers.busy:
            self._resume_reading()
            if not self._parser.under_way:
                self._patience.for_another()

    def pause_writing(self) -> None:
        """The client does not read its answers."""
        self._answers.pause()
        self._patience.for_reader(self._transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The client reads them again."""
        self._patience.read()
        self._answers.resume()
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
            self._clients.admission.resume(self)
        if self._parser is None or self._answers.busy or self._parser.in_body:
            return  # the answer ends it
        if self._asked:
            self._transport.close()
        else:
            self._patience.for_first()

    def time_out(self) -> None:
        """Close if the request under way takes too long to come, with 408 if nothing was answered, or none comes.

        A connection whose client does not read is given up.
        """
        closing = self._transport.is_closing()
        if self._patience.is_unread(self._transport.get_write_buffer_size(), closing=closing):
            self._transport.abort()
        if closing or not self._patience.is_over():
            return
        if self._patience.idle:
            self._transport.close()
        else:
            self._refuse(408, "the request took too long to arrive")

    def abort(self) -> None:
        """End the connection at once, whatever is left unsaid."""
        self._transport.abort()

    def _refuse(self, status: int, text: str) -> None:
        """Answer what comes, unless it is answered already, and close."""
        if self._parser is None or self._transport.is_closing():
            return
        if self._parser.discards:
            self._transport.close()
        else:
            self._answers.put(Request(keep_alive=False), (status, JSON, error_body(text)))
            self._answers.go_on()
