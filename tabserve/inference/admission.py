"""Admission: how many requests are worked on at once, and what they may cost in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from itertools import islice
from typing import Protocol, TypeVar

from tabserve.inference.errors import DeadlineExceeded, InvalidRequest, Overloaded
from tabserve.inference.metrics import Metrics
from tabserve.inference.model import Context

T = TypeVar("T")


PATIENCE_SECONDS = 0.6
"""A request waits for a place only if it is likely to be answered within this time of its arrival."""
REFUSALS_PER_SECOND = 2000
"""A refusal costs 30 µs, or 65 µs where a body of 64 rows comes with it: at this rate at most 13 % of a core."""
_FADING = 0.99
"""How much of what earlier requests told of the pace is kept with each further one."""


class Waiting(Protocol):
    """A request that has come and is left unread."""

    def resume(self) -> None:
        """Read it, and answer or refuse it."""


class Pace:
    """Seconds from one free place to the next, from how long requests waited in a queue; 0 while nothing is known."""

    def __init__(self) -> None:
        self._seconds = self._places = 0.0

    @property
    def seconds(self) -> float:
        """The mean, in which what was seen lately counts most."""
        return self._seconds / self._places if self._places else 0.0

    def saw(self, seconds: float, places: int) -> None:
        """A request got its place after so many seconds, as the places-th in the queue."""
        self._seconds = self._seconds * _FADING + seconds
        self._places = self._places * _FADING + places

    def forget(self) -> None:
        """The queue is empty: the next one may be of other requests."""
        self._seconds = self._places = 0.0


class Admission:
    """Admits up to `limit` requests at once, over all protocols.

    Past that, REST requests wait unread for a place, in a queue as long as `PATIENCE_SECONDS` allow; past that, and
    over gRPC, each is refused at once. Past `REFUSALS_PER_SECOND` REST requests wait all the same: to refuse any number
    of clients that come back at once would leave the server no time to answer any.
    """

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self._limit = limit
        self._metrics = metrics
        self._in_flight = 0
        self._waiting: dict[Waiting, tuple[float, int]] = {}  # since when, and which of the queue; the oldest first
        self._pace = Pace()
        self._resuming = False
        self._refusals_paid_until = 0.0  # in time.monotonic(); a refusal pays for 1/REFUSALS_PER_SECOND
        self.reason = f"all {limit} places for requests are taken"

    @property
    def full(self) -> bool:
        """Whether there is no place."""
        return self._in_flight >= self._limit

    @property
    def crowded(self) -> bool:
        """Whether a request that comes now finds no place, or others that wait for one."""
        return self.full or bool(self._waiting)

    def turns_away(self) -> bool:
        """Whether a request that comes when it is crowded is to be refused at once, rather than to wait."""
        now = time.monotonic()
        since, _ = next(iter(self._waiting.values()), (now, 0))
        likely = self._pace.seconds * (len(self._waiting) + self._in_flight + 1)
        return max(likely, now - since) > PATIENCE_SECONDS and self._refusals_paid_until <= now

    def wait(self, request: Waiting) -> None:
        """Resume the request when a place is free and all that came before it have theirs."""
        self._waiting[request] = time.monotonic(), len(self._waiting) + 1
        self._metrics.waiting.value = len(self._waiting)

    def forget(self, request: Waiting) -> None:
        """The request waits no longer, if it did."""
        self._waiting.pop(request, None)
        self._metrics.waiting.value = len(self._waiting)

    def count_refusal(self, protocol: str) -> None:
        """A request gets no place."""
        self._metrics.rejected.add(protocol)
        # A second's refusals may come in one burst.
        self._refusals_paid_until = max(self._refusals_paid_until, time.monotonic() - 1) + 1 / REFUSALS_PER_SECOND

    def enter(self, protocol: str) -> None:
        """Take a place; raises Overloaded when there is none."""
        if self.full:
            self.count_refusal(protocol)
            raise Overloaded(self.reason)
        self._in_flight += 1
        self._metrics.in_flight.value = self._in_flight

    def leave(self) -> None:
        """Give the place back."""
        self._in_flight -= 1
        self._metrics.in_flight.value = self._in_flight
        if not self._waiting:
            self._pace.forget()
        elif not self._resuming:
            self._resume_soon()

    def _resume_soon(self) -> None:
        self._resuming = True
        asyncio.get_running_loop().call_soon(self._resume)

    def _resume(self) -> None:
        """Resume as many as there are places; until they are read and take them, or turn out to need none."""
        self._resuming = False
        now = time.monotonic()
        for request, (since, place) in list(islice(self._waiting.items(), max(0, self._limit - self._in_flight))):
            self._pace.saw(now - since, place)
            request.resume()
        if self._waiting and not self.full:
            self._resume_soon()


def deadline(timeout_ms: bytes | None, waited: float = 0.0) -> float:
    """The time.monotonic() that the header x-request-timeout-ms stands for; infinite without one.

    waited: seconds since the request came.
    """
    if timeout_ms is None:
        return float("inf")
    if not timeout_ms.isdigit() or len(timeout_ms) > 9:
        raise InvalidRequest("x-request-timeout-ms: expected a whole number of milliseconds")
    return time.monotonic() - waited + int(timeout_ms) / 1000


async def within_deadline(work: Awaitable[T], context: Context) -> T:
    """The result of `work`, which is cancelled at the deadline; raises DeadlineExceeded then."""
    try:
        async with asyncio.timeout(context.remaining()):
            return await work
    except TimeoutError:
        raise DeadlineExceeded("the deadline passed before the request was answered") from None
