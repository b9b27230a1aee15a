"""A client's connection, which reads requests or leaves them unread, and ends what takes too long."""

from __future__ import annotations

import asyncio
from typing import cast

from tabserve.inference.rest.answers import Answers
from tabserve.inference.rest.clients import Clients
from tabserve.inference.rest.patience import Patience
from tabserve.inference.rest.reading import Reading

MOST_UNREAD_BYTES = 65536
"""The most bytes that are kept of a request that waits for a place."""


class Connection(asyncio.Protocol):
    """Ends a connection whose request is malformed (400), has too long headers (431) or is too slow (408).

    Requests that come before an earlier one is answered (pipelining) are answered in their order.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._transport: asyncio.Transport
        self._answers = Answers(clients.application, clients.budget, clients.load, self._go_on)
        self._patience = Patience(clients.settings, clients.now)
        self._reading: Reading | None = Reading(clients, self._answers, self._patience, self._go_on)
        self._paused = False
        self._unread = b""  # the part that has arrived of a request that waits for a place, or for its refusal

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start serving a client that has connected."""
        assert self._reading is not None
        self._transport = cast("asyncio.Transport", transport)
        self._answers.start(self._transport)
        self._reading.start(self._transport)
        self._clients.join(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel everything, because the client has gone away.

        References back to the connection are dropped, because the garbage collector would keep old objects for long.
        """
        self._clients.leave(self)
        self._clients.admission.forget(self)
        self._answers.end()
        if self._reading is not None:
            self._reading.end()
            self._reading = None

    @property
    def busy(self) -> bool:
        """Whether the client has an unanswered request."""
        return bool(self._unread) or self._answers.busy

    def data_received(self, data: bytes) -> None:
        """Read the data, or leave it unread until its request gets a place; health and metadata never wait."""
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
        """Whether the data begins a request, and no other is under way."""
        return self._reading is not None and not self._reading.under_way and not self._answers.busy

    def resume(self, waited: float) -> None:
        """Read the data that was left unread."""
        self._resume_reading()
        unread, self._unread = self._unread, b""
        if self._reading is not None:
            self._reading.waited = waited
            self._read(unread)

    def _read(self, data: bytes) -> None:
        if self._reading is not None and not self._transport.is_closing():
            self._reading.feed(data)
            self._go_on()

    def _go_on(self) -> None:
        """Read on once all requests are answered, and wait for another."""
        reading = self._reading
        if reading is None or self._transport.is_closing():
            return
        if self._answers.waiting or reading.waits:
            self._pause_reading()
        elif not self._answers.busy:
            self._resume_reading()
            if not reading.under_way:
                self._patience.for_another()
                self._clients.heard(self)

    def pause_writing(self) -> None:
        """Stop sending answers, which the client does not read."""
        left = self._transport.get_write_buffer_size()
        self._answers.pause(left)
        self._patience.for_reader(left)

    def resume_writing(self) -> None:
        """Send answers again, which the client reads again."""
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
        """End the connection because the server stops, after the answer if there is or may soon be a request."""
        if self._unread:
            self._clients.admission.resume(self)
        if self._reading is None or self._answers.busy or self._reading.in_body:
            return  # the answer ends the connection
        if self._reading.asked:
            self.close()
        else:
            self._patience.for_first()

    def time_out(self) -> None:
        """Close if a request takes too long to arrive, with 408 if nothing was answered yet, or if none comes.

        A connection whose client does not read is aborted.
        """
        closing = self._transport.is_closing()
        if self._patience.is_unread(self._transport.get_write_buffer_size(), closing=closing):
            self._transport.abort()
        if closing or not self._patience.is_over():
            return
        if self._patience.idle:
            self.close()
        elif self._reading is not None:
            self._reading.refuse(408, "the request took too long to arrive")

    def close(self) -> None:
        """End the connection, on which only an incomplete request is under way."""
        self._transport.close()

    def abort(self) -> None:
        """End the connection at once, without sending anything more."""
        self._transport.abort()
