"""Admission: how many requests are worked on at once, and what they may cost in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from tabserve.inference.errors import DeadlineExceeded, InvalidRequest, Overloaded
from tabserve.inference.metrics import Metrics
from tabserve.inference.model import Context

T = TypeVar("T")


class Admission:
    """Admits up to `limit` requests at once, over all protocols; past that each is refused at once."""

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self._limit = limit
        self._metrics = metrics
        self._in_flight = 0
        self.reason = f"all {limit} places for requests are taken"

    @property
    def full(self) -> bool:
        """Whether there is no place."""
        return self._in_flight >= self._limit

    def count_refusal(self, protocol: str) -> None:
        """A request gets no place."""
        self._metrics.rejected.add(protocol)

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


def deadline(timeout_ms: bytes | None) -> float:
    """The time.monotonic() that the header x-request-timeout-ms stands for; infinite without one."""
    if timeout_ms is None:
        return float("inf")
    if not timeout_ms.isdigit() or len(timeout_ms) > 9:
        raise InvalidRequest("x-request-timeout-ms: expected a whole number of milliseconds")
    return time.monotonic() + int(timeout_ms) / 1000


async def within_deadline(work: Awaitable[T], context: Context) -> T:
    """The result of `work`, which is cancelled at the deadline; raises DeadlineExceeded then."""
    try:
        async with asyncio.timeout(context.remaining()):
            return await work
    except TimeoutError:
        raise DeadlineExceeded("the deadline passed before the request was answered") from None
