"""Read gRPC requests as bytes, each when there is memory for it."""

from __future__ import annotations

import asyncio

from tabserve.inference.grpc import tuning  # noqa: F401 - before grpc

# isort: split
import grpc

from tabserve.inference.errors import InvalidRequest, Overloaded
from tabserve.inference.memory import FREE_BYTES, Budget, Share


class _Message(Share):
    """An arriving message; gRPC does not say how long it is, so its share is that of the longest."""

    __slots__ = ("_granted", "_task", "given_up")

    blind = True

    def __init__(self, budget: Budget, task: asyncio.Task[object]) -> None:
        super().__init__(budget)
        self.given_up = False
        self._task = task
        self._granted: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Wait until there is memory."""
        self._granted = self._task.get_loop().create_future()
        await self._granted

    def granted(self) -> None:
        """Note that there is memory."""
        if self._granted is not None and not self._granted.done():
            self._granted.set_result(None)

    def lost(self) -> None:
        """Note that there is no memory, or no longer."""
        self.given_up = True
        self._task.cancel()


class _Answer(Share):
    """An answer that its client may leave unread; the call is ended if others need its memory."""

    __slots__ = ("_task",)

    def __init__(self, budget: Budget, task: asyncio.Task[object]) -> None:
        super().__init__(budget)
        self._task = task

    def lost(self) -> None:
        """End the call."""
        self._task.cancel()


class Messages:
    """Reads and counts messages up to a size."""

    def __init__(self, budget: Budget, most: int) -> None:
        self._budget = budget
        self._most = most

    async def read(self, context: grpc.aio.ServicerContext) -> tuple[bytes, Share]:
        """A call's message and its share of the memory; the message stays with the client until there is memory.

        Raises Overloaded if there is none, or if others wait for it while the message does not arrive, and
        InvalidRequest if there is no message.
        """
        task = _current_task()
        share = _Message(self._budget, task)
        share.ask(self._most)
        try:
            if not share.here:
                await share.wait()
            data = await context.read()
        except asyncio.CancelledError:
            context.add_done_callback(lambda _: share.give_back())
            if not share.given_up or task.uncancel() > 0:
                raise
            raise Overloaded("too many large requests at once") from None
        if not isinstance(data, bytes):
            share.give_back()
            raise InvalidRequest("expected a message, got none")
        share.work(len(data))
        return data, share

    def send(self, response: bytes, context: grpc.aio.ServicerContext) -> None:
        """Count an answer that its client may leave unread, until the call is over."""
        if len(response) > FREE_BYTES:
            share = _Answer(self._budget, _current_task())
            share.send(len(response))
            context.add_done_callback(lambda _: share.give_back())


def _current_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task
