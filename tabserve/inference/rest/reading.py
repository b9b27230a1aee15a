"""Read a connection's requests: parse them, refuse some by their headers, and pass the others on for answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

from tabserve.inference.memory import FREE_BYTES, Budget, Share
from tabserve.inference.rest.answers import Answers
from tabserve.inference.rest.application import error_body, failed
from tabserve.inference.rest.clients import Clients
from tabserve.inference.rest.pages import JSON
from tabserve.inference.rest.parser import MalformedError, Parser, Request
from tabserve.inference.rest.patience import Patience

FRESH_BYTES = 65536
"""How many bytes must arrive within memory.PATIENCE_SECONDS for a body to count as arriving."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Body(Share):
    """The memory of an arriving body."""

    __slots__ = ("_reading",)

    def __init__(self, reading: Reading, budget: Budget) -> None:
        super().__init__(budget)
        self._reading = reading

    def granted(self) -> None:
        """Read on, now that there is memory."""
        self._reading.granted()

    def lost(self) -> None:
        """Refuse the request, for which there is no memory."""
        self._reading.lost()


class Reading:
    """Reads requests, each with the memory for its body.

    asked: whether a request has come. waits: whether one waits for memory. waited: seconds for which the next one was
    left unread.
    go_on: called when there is memory, or there will be none, in a later turn of the event loop than the request for
    it.
    """

    def __init__(self, clients: Clients, answers: Answers, patience: Patience, go_on: Callable[[], None]) -> None:
        settings = clients.settings
        self._clients = clients
        self._answers = answers
        self._patience = patience
        self._go_on: Callable[[], None] | None = go_on
        self._transport: asyncio.Transport
        self._parser = Parser(self, settings.max_header_bytes, settings.max_body_bytes)
        self._large: Request | None = None  # the arriving request that has, or waits for, a share of the memory
        self._fresh = 0  # its bytes since its share last noted progress
        self.asked = self.waits = False
        self.waited = 0.0

    @property
    def under_way(self) -> bool:
        """Whether part of a request has arrived."""
        return self._parser.under_way

    @property
    def in_body(self) -> bool:
        """Whether a request's headers have arrived, but not all of its body."""
        return self._parser.in_body

    def start(self, transport: asyncio.Transport) -> None:
        """Start reading from this transport."""
        self._transport = transport

    def end(self) -> None:
        """Give the memory back after the client has gone away, and drop references to the connection."""
        self._let_go()
        self._go_on = None
        self._parser.end()

    def feed(self, data: bytes) -> None:
        """Parse the data; malformed data is refused."""
        try:
            self._parser.feed(data)
        except MalformedError as error:
            self.refuse(error.status, str(error))
        except Exception as error:  # noqa: BLE001 - the edge: logged by type and place, answered as a 500
            self.refuse(500, failed(error).message)
        else:
            self._answers.go_on()
            if self._large is not None:
                self._note(len(data))

    def refuse(self, status: int, text: str) -> None:
        """Answer the arriving request, unless it is already answered, and close."""
        self._let_go()
        if self._parser.discards:
            self._transport.close()
        else:
            self._answers.put(Request(keep_alive=False), (status, JSON, error_body(text)))
            self._answers.go_on()

    def begun(self) -> None:
        """Note that a request begins."""
        self.asked = True
        self._patience.for_request()

    def headers_read(self, request: Request) -> bool:
        """Answer at once if the headers are enough for that."""
        clients = self._clients
        request.waited, self.waited = self.waited, 0.0
        request.since = perf_counter() - request.waited
        answer = clients.application.admit(request, unplaced=clients.admission.full)
        if answer is not None:
            self._answers.put(request, answer)
            self._patience.for_rest()
            return False
        if request.size > FREE_BYTES:
            self._share(request)
        elif b"expect" in request.headers:
            self._invite(request)
        return True

    def _share(self, request: Request) -> None:
        request.memory = memory = _Body(self, self._clients.budget)
        self._large, self._fresh = request, 0
        memory.ask(request.size)
        self.waits = not memory.here
        if memory.here:
            self._invite(request)

    def too_large(self, request: Request) -> None:
        """Refuse a body that is over the limit."""
        self._let_go()
        self._answers.put(request, self._clients.application.too_large(request))
        self._patience.for_rest()

    def read(self, request: Request, *, kept: bool) -> None:
        """Answer a request that has arrived as a whole."""
        self._patience.for_nothing()
        if kept:
            if request.memory is not None:
                self._large, self.waits = None, False
                request.memory.work(len(request.body))
            self._answers.put(request)

    def _note(self, size: int) -> None:
        """Count `size` bytes that arrived, some of them of the large request."""
        self._fresh += size
        if self._fresh >= FRESH_BYTES and self._large is not None and self._large.memory is not None:
            self._fresh = 0
            self._large.memory.goes_on()

    def _invite(self, request: Request) -> None:
        if request.headers.get(b"expect", b"").lower() == b"100-continue" and not self._answers.busy:
            self._transport.write(_CONTINUE)

    def granted(self) -> None:
        """Read the arriving body, for which there is memory."""
        assert self._large is not None
        self.waits = False
        self._invite(self._large)
        self._read_on()

    def lost(self) -> None:
        """Refuse the arriving body, for which there is no memory, or no longer."""
        request = self._large
        assert request is not None
        request.memory = None
        self._large, self.waits = None, False
        self._parser.discard()
        self._answers.put(request, self._clients.application.out_of_memory(request))
        self._patience.for_rest()
        self._answers.go_on()
        self._read_on()

    def _read_on(self) -> None:
        if self._go_on is not None:
            self._go_on()

    def _let_go(self) -> None:
        if self._large is not None and self._large.memory is not None:
            self._large.memory.give_back()
            self._large.memory = None
        self._large, self.waits = None, False
