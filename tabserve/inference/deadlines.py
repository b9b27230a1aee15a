"""Wait for a request's answer until its deadline."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable
from typing import Any, TypeVar

from tabserve.inference.errors import DeadlineExceeded, InvalidRequest

T = TypeVar("T")

TIMEOUT = "x-request-timeout-ms"
"""The header with a client's deadline, in milliseconds from the request."""

_RESOLUTION_SECONDS = 0.001
"""The resolution of the event loop's timers."""


def deadline(timeout_ms: bytes | None, waited: float = 0.0) -> float:
    """The time.monotonic() that this header stands for, infinite without one.

    waited: seconds since the request came.
    """
    if timeout_ms is None:
        return math.inf
    if not timeout_ms.isdigit() or len(timeout_ms) > 9:
        raise InvalidRequest("x-request-timeout-ms: expected a whole number of milliseconds")
    return time.monotonic() - waited + int(timeout_ms) / 1000


class Deadlines:
    """Waits for answers until their deadlines, on one event loop, with one timer for all of them.

    The timer stays when an answer has come, and when it fires it is set again for whoever waits then. Most requests
    have the same timeout, so the timer is set once in that time; a timer per request would be set and cancelled each
    time.
    """

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[Any], float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rings = math.inf  # in time.monotonic()

    def in_time(self, answer: asyncio.Future[T], deadline: float) -> Awaitable[T]:
        """The answer. Raises DeadlineExceeded when time.monotonic() reaches the deadline.

        This does not use asyncio.timeout, which sets a timer for every request.
        """
        return answer if deadline == math.inf else self._bounded(answer, deadline)

    async def _bounded(self, answer: asyncio.Future[T], deadline: float) -> T:
        self._waiting[answer] = deadline
        if deadline < self._rings:
            self._set(deadline)
        try:
            return await answer
        finally:
            del self._waiting[answer]

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        left = max(0.0, when - time.monotonic())
        self._timer, self._rings = asyncio.get_running_loop().call_later(left, self._ring), when

    def _ring(self) -> None:
        self._timer, self._rings = None, math.inf
        due = time.monotonic() + _RESOLUTION_SECONDS
        for answer, deadline in self._waiting.items():
            if deadline < due and not answer.done():
                answer.set_exception(DeadlineExceeded("the deadline passed before the request was answered"))
        later = [deadline for deadline in self._waiting.values() if deadline >= due]
        if later:
            self._set(min(later))
