"""A client's connection: uvicorn's HTTP protocol with limits on headers and on time, and JSON errors."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tabserve.inference.admission import Admission
from tabserve.inference.http import JSON, error_body, message

SWEEP_SECONDS = 1.0
FIRST_SECONDS = 2.0
"""How long a server that stops waits for the first request of a client that has just connected."""
LINGER_SECONDS = 2.0
"""How long a refused request may go on coming, so that its client can read the answer (RFC 9112, section 9.6)."""


_END_OF_HEADERS = b"\r\n\r\n"
_ENDED: Any = types.SimpleNamespace(response_complete=True, message_event=asyncio.Event())
"""What uvicorn finds in place of its cycle of a request and an answer, once there is an answer."""


class Connection(HttpToolsProtocol):
    """Ends a connection whose request is malformed (400), has too long headers (431) or is too slow (408)."""

    max_header_bytes = 64 * 2**10
    read_timeout = 30.0
    refuse: Callable[[bytes, bytes], bytes | None] = staticmethod(lambda method, path: None)
    """By method and path, the whole answer to a request that gets no place; None where it needs none."""
    admission: Admission
    """What tells which requests are refused or left unread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._until: float | None = self.loop.time() + self.read_timeout  # when what is waited for is too late
        self._idle = False  # what is waited for is another request
        self._receiving = False
        self._worked_on: Any = None  # uvicorn's cycle of the request that the application has
        self._task: asyncio.Task[None] | None = None
        self._starting: Any = None  # the application, which is to start as soon as the request is read
        self._ordinal = 0  # of its last answer among the server's
        self._in_headers = True  # what comes next is of the headers
        self._begun = False  # and some of them has come
        self._answered = False
        self._header_bytes = 0
        self._tail = b""
        self._turned_away = False  # the request that comes is to be refused
        self._unread = b""  # what has come of a request that waits for a place, or for its refusal
        self.waited = 0.0

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone away: what answers it is cancelled.

        And what leads back here is let go: what has lived long, the garbage collector would keep for long.
        """
        super().connection_lost(exc)
        self.admission.forget(self)
        if self._task is not None:
            self._task.cancel()
        self.pipeline.clear()
        self.scope = self.cycle = self._worked_on = self._task = None  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Read what came, or leave it unread until its request gets a place; health and metadata never wait."""
        if self._unread:
            self._unread += data
            if len(self._unread) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
        elif not (self.admission.crowded and self._begins() and data.startswith(b"POST ")):
            self._read(data)
        elif self.admission.wait(self):
            self._unread = data
            self._until = None
        else:
            self._turned_away = True
            self._read(data)
            self._turned_away = False

    def _begins(self) -> bool:
        """Whether what comes is the beginning of a request, and no other is under way."""
        return self._in_headers and not self._begun and (self.cycle is None or self.cycle.response_complete)

    def resume(self, waited: float) -> None:
        """Read what was left unread."""
        self.flow.resume_reading()
        self.waited = waited
        unread, self._unread = self._unread, b""
        self._read(unread)

    def shutdown(self) -> None:
        """The server stops: end the connection, after the answer if there is a request or the first is on its way."""
        if self._unread:
            self.admission.resume(self)
        if self.cycle is not None:
            super().shutdown()
        else:
            self._idle = not self._begun
            self._until = self.loop.time() + FIRST_SECONDS

    def _read(self, data: bytes) -> None:
        """Parse what came, unless the headers in it are too long; the parser would keep them all."""
        if self._in_headers and self._too_long(data):
            self._refuse(431, f"expected at most {self.max_header_bytes} bytes of headers")
            return
        super().data_received(data)
        if self._starting is not None:
            self._start()
        if self._in_headers and self._begun:
            last = data.rfind(_END_OF_HEADERS)
            self._header_bytes += len(data) if last < 0 else len(data) - last - len(_END_OF_HEADERS)
            self._tail = data[-3:]

    def _too_long(self, data: bytes) -> bool:
        end = (self._tail + data).find(_END_OF_HEADERS)
        return self._header_bytes + (len(data) if end < 0 else end) > self.max_header_bytes

    def on_message_begin(self) -> None:
        """A request begins; the application finds this connection in its scope."""
        super().on_message_begin()
        self._begun = self._receiving = True
        self._answered = self._idle = False
        self._until = self.loop.time() + self.read_timeout
        self.scope["tabserve.connection"] = self  # type: ignore[typeddict-unknown-key]

    def on_headers_complete(self) -> None:
        """The headers are read; the application starts, unless the request is refused already."""
        self._in_headers = self._begun = False
        self._header_bytes = 0
        self._tail = b""
        unplaced = self._turned_away or self.admission.full
        refusal = self.refuse(self.parser.get_method(), self.url) if unplaced and self._may_be_refused() else None
        if refusal is None:
            super().on_headers_complete()
            return
        self.cycle = _ENDED
        self.transport.write(refusal)
        self.linger()
        self.on_response_complete()

    def _may_be_refused(self) -> bool:
        """Whether nothing of uvicorn's is needed for the answer: its queue, flow control or closing of connections."""
        idle = self.cycle is None or self.cycle.response_complete
        stays = self.parser.get_http_version() == "1.1" and self.parser.should_keep_alive()
        return idle and stays and not self.flow.write_paused and not self.server_state.default_headers

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """The application starts on a request: at once where this is the only client that asks.

        Where others ask too, it starts in the next turn of the loop, so that requests that come together go together.
        """
        self._worked_on = cycle
        if self.tasks or self._ordinal != self.server_state.total_requests:
            self._run(cycle.run_asgi(app))
        else:
            self._starting = app

    def _start(self) -> None:
        """Take the application's first steps without a task, which costs a small answer a twelfth of its time.

        That is what asyncio's eager tasks do from Python 3.12 on, but that there is no current task until it waits.
        """
        run, self._starting = self._worked_on.run_asgi(self._starting), None
        if self._worked_on.more_body:
            self._run(run)
            return
        try:
            waits_for = run.send(None)
        except StopIteration:
            return
        self._run(_rest(run, waits_for))

    def _run(self, run: Coroutine[Any, Any, None]) -> None:
        self._task = self.loop.create_task(run)
        self._task.add_done_callback(self.tasks.discard)
        self.tasks.add(self._task)

    @property
    def alone(self) -> bool:
        """Whether no other request is under way, on any connection."""
        return len(self.tasks) <= 1  # none, where this one was started at once

    def body(self) -> bytes | None:
        """The body of the request that is worked on, where all of it has come already."""
        cycle = self._worked_on
        return None if cycle.more_body else bytes(cycle.body)

    async def answer(self, status: int, lines: bytes, body: bytes) -> None:
        """Send the whole answer to the request that is worked on; lines: of its headers but those of the framing.

        In one write: ASGI's two messages would be two, and a system call is a good part of what a small answer costs.
        """
        if self.flow.write_paused:
            await self.flow.drain()
        cycle = self._worked_on
        if cycle is None:  # the client has gone away
            return
        ends = not cycle.keep_alive or bool(self.server_state.default_headers)
        self.transport.write(message(status, lines, body, ends=ends, head_only=cycle.scope["method"] == "HEAD"))
        cycle.response_started = cycle.response_complete = True
        if ends:
            self.transport.close()
        cycle.on_response()

    def on_message_complete(self) -> None:
        """The request is read; what comes next is another one's headers."""
        self._receiving = False
        self._until = None
        self._in_headers = True
        if self.cycle.response_complete:
            self._wait_for_another()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is sent. Unlike uvicorn, which arms a timer, leave it to `time_out` to end an idle connection."""
        self.server_state.total_requests += 1
        self._ordinal = self.server_state.total_requests
        self.waited = 0.0
        self._let_go()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._worked_on, app = self.pipeline.pop()
            self._run(self._worked_on.run_asgi(app))
        elif not self._receiving:
            self._wait_for_another()

    def _let_go(self) -> None:
        """Free what was made for the request now, while the caches hold it, and not when the next one comes."""
        if self.cycle is self._worked_on:
            self.cycle = _ENDED
        if not self._begun:
            self.scope = self.headers = None  # type: ignore[assignment]
        self._worked_on = self._task = None

    def _wait_for_another(self) -> None:
        self._idle = True
        self._until = self.loop.time() + self.timeout_keep_alive

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request, and close."""
        self._refuse(400, "this is no HTTP request that can be read")

    def linger(self) -> None:
        """The request is answered: what is still to come of it is thrown away, and must come soon."""
        self._answered = True
        if self._until is not None:
            self._until = min(self._until, self.loop.time() + LINGER_SECONDS)

    def time_out(self, now: float) -> None:
        """Close if the request under way takes too long to come, with 408 if nothing was answered, or none comes."""
        if self._until is None or now < self._until or self.transport.is_closing():
            return
        if self._idle:
            self.transport.close()
        else:
            self._refuse(408, "the request took too long to arrive")

    def _refuse(self, status: int, text: str) -> None:
        if not self._answered:
            self.transport.write(message(status, JSON, error_body(text), ends=True))
        self.transport.close()


async def _rest(run: Coroutine[Any, Any, None], waits_for: Any) -> None:
    """What is left of a coroutine that has begun and waits for a future."""
    await _awaitable(run, waits_for)


@types.coroutine
def _awaitable(run: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, None, None]:
    while True:
        try:
            yield waits_for
        except BaseException as error:  # noqa: BLE001 - handed on to the coroutine
            resume = partial(run.throw, error)
        else:
            resume = partial(run.send, None)
        try:
            waits_for = resume()
        except StopIteration:
            return


async def sweep(connections: set[Connection], admission: Admission) -> None:
    """Forever end the connections whose request has been coming for too long, and read those left unread for long."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        admission.resume_late()
        for connection in list(connections):
            connection.time_out(loop.time())
