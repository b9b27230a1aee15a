"""Answer a connection's requests in their order, one at a time, as fast as the client reads."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

from tabserve.inference.memory import Budget, Share
from tabserve.inference.rest.application import Answer, Application, message
from tabserve.inference.rest.parser import Request

_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


class Load:
    """The load of one server's connections.

    working: how many requests are being answered. answered: how many have been. leaving: whether every answer ends its
    connection, so that clients go elsewhere for the next.
    """

    def __init__(self) -> None:
        self.working = self.answered = 0
        self.leaving = False


class _Unread(Share):
    """Answers that a client does not read; its connection is ended if others need their memory."""

    __slots__ = ("_transport",)

    def __init__(self, budget: Budget, transport: asyncio.Transport) -> None:
        super().__init__(budget)
        self._transport = transport

    def lost(self) -> None:
        """End the connection."""
        self._transport.abort()


class Answers:
    """Answers requests, each in its own task.

    sent: called whenever answers were sent in a later turn of the event loop than the call of `go_on`.
    """

    def __init__(self, application: Application, budget: Budget, load: Load, sent: Callable[[], None]) -> None:
        self._application = application
        self._budget = budget
        self._load = load
        self._sent: Callable[[], None] | None = sent
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._queue: deque[tuple[Request, Answer | None]] = deque()
        self._task: asyncio.Task[Answer] | None = None
        self._ordinal = 0  # number of the last answer here, among all of the server's
        self._unread: Share | None = None  # for answers that the client does not read

    @property
    def waiting(self) -> bool:
        """Whether requests wait for an earlier one."""
        return bool(self._queue)

    @property
    def busy(self) -> bool:
        """Whether there is an unanswered request."""
        return self._task is not None or bool(self._queue)

    def start(self, transport: asyncio.Transport) -> None:
        """Start writing to this transport."""
        self._transport = transport

    def put(self, request: Request, answer: Answer | None = None) -> None:
        """Answer a request after those before it, with this answer if it is already known."""
        self._queue.append((request, answer))

    def pause(self, left: int) -> None:
        """Stop sending answers, of which the client has not read `left` bytes."""
        self._unread = _Unread(self._budget, self._transport)
        self._unread.send(left)

    def resume(self) -> None:
        """Send answers again, which the client reads again."""
        self._read()
        self.go_on()

    def _read(self) -> None:
        if self._unread is not None:
            self._unread.give_back()
            self._unread = None

    def go_on(self) -> None:
        """Answer the requests that can be answered now."""
        while self._queue and self._task is None and self._unread is None:
            request, answer = self._queue.popleft()
            if answer is None:
                self._begin(request)
            else:
                self._send(request, answer)

    def end(self) -> None:
        """Cancel the answers after the client has gone away, and drop references to the connection."""
        self._clear()
        self._read()
        self._sent = None
        if self._task is not None:
            self._task.cancel()

    def _begin(self, request: Request) -> None:
        """Begin an answer; the request is `alone` if no other client is asking, so that no other request comes now."""
        load = self._load
        request.alone = load.working == 0 and self._ordinal == load.answered
        load.working += 1
        work = self._application.answer(request)
        # Most are answered before this returns, if Python can start a task at once.
        task = asyncio.Task(work, loop=self._loop, **_EAGER)
        if task.done():
            self._finish(request, task)
        else:
            self._task = task
            task.add_done_callback(lambda done: self._finish_later(request, done))

    def _finish(self, request: Request, task: asyncio.Task[Answer]) -> None:
        """End an answer; there is one whatever has gone wrong, unless the client has gone away."""
        self._load.working -= 1
        _let_go(request)
        if task.cancelled():
            answer = None if self._sent is None else self._application.failure(asyncio.CancelledError(), request)
        else:
            answer = task.result()
        if answer is not None:
            self._send(request, answer)

    def _finish_later(self, request: Request, task: asyncio.Task[Answer]) -> None:
        self._task = None
        self._finish(request, task)
        self.go_on()
        if self._sent is not None:
            self._sent()

    def _send(self, request: Request, answer: Answer) -> None:
        """Send an answer in one write, because a system call is much of the cost of a small answer."""
        if self._transport.is_closing():
            return
        ends = self._load.leaving or not request.keep_alive
        self._transport.write(message(*answer, ends=ends, head_only=request.method == b"HEAD"))
        self._load.answered += 1
        self._ordinal = self._load.answered
        if ends:
            self._clear()
            self._transport.close()

    def _clear(self) -> None:
        for request, _ in self._queue:
            _let_go(request)
        self._queue.clear()


def _let_go(request: Request) -> None:
    """Give back the memory of a finished request."""
    if request.memory is not None:
        request.memory.give_back()
        request.memory = None
