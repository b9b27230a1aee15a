"""Limit how many requests are worked on at once, and how long others wait for a place."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from tabserve.inference.errors import Overloaded
from tabserve.inference.logs import limited
from tabserve.inference.metrics import Gauge, Metrics

PATIENCE_SECONDS = 0.6
"""How long a request waits before it is refused."""

logger = logging.getLogger(__name__)


class Waiting(Protocol):
    """A request that has arrived and is left unread."""

    def resume(self, waited: float) -> None:
        """Read the request, which has waited for `waited` seconds, and answer or refuse it."""


class Admission:
    """Admits up to `limit` requests at once, over all protocols.

    Beyond that, gRPC requests are refused. REST requests wait unread, first come, first served. They are refused after
    PATIENCE_SECONDS, and no sooner: clients that ask again at once would leave the server no time to answer any.

    clock: gives seconds, as time.monotonic() does.
    """

    def __init__(self, limit: int, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._rejected = metrics.rejected
        self._in_flight = 0
        self._waiting: OrderedDict[Waiting, float] = OrderedDict()  # since when each waits; the oldest first
        self._resuming = False
        self.reason = "too many requests at once"
        self._told = f"over {limit} requests at once: others are refused"
        metrics.add(
            Gauge("tabserve_requests_in_flight", "Requests admitted and not yet answered", lambda: self._in_flight),
            Gauge("tabserve_requests_waiting", "Requests that wait, unread, for a place", lambda: len(self._waiting)),
        )

    @property
    def full(self) -> bool:
        """Whether all places are taken."""
        return self._in_flight >= self._limit

    @property
    def crowded(self) -> bool:
        """Whether a request that arrives now finds no place, or others that wait for one."""
        return self._in_flight >= self._limit or bool(self._waiting)

    def wait(self, request: Waiting) -> None:
        """Resume the request when there is a place for it, or when it has waited too long."""
        self._waiting[request] = self._clock()

    def forget(self, request: Waiting) -> None:
        """Note that the request no longer waits, if it did."""
        self._waiting.pop(request, None)

    def resume(self, request: Waiting) -> None:
        """Resume a waiting request at once."""
        request.resume(self._clock() - self._waiting.pop(request))

    def resume_late(self) -> None:
        """Resume requests that have waited too long, even without a place."""
        late = self._clock() - PATIENCE_SECONDS
        while self._waiting and next(iter(self._waiting.values())) < late:
            self.resume(next(iter(self._waiting)))

    def count_refusal(self, protocol: str) -> None:
        """Note that a request gets no place."""
        self._rejected.add(protocol)
        limited.tell(logger, logging.WARNING, "overloaded", self._told, most=self._limit)

    def refuse_if_full(self, protocol: str) -> None:
        """Raise Overloaded if there is no place."""
        if self.full:
            self.count_refusal(protocol)
            raise Overloaded(self.reason)

    def enter(self, protocol: str) -> None:
        """Take a place. Raises Overloaded if there is none."""
        self.refuse_if_full(protocol)
        self._in_flight += 1

    def leave(self) -> None:
        """Give the place back."""
        self._in_flight -= 1
        if self._waiting and not self._resuming:
            self._resume_soon()

    def _resume_soon(self) -> None:
        self._resuming = True
        asyncio.get_running_loop().call_soon(self._resume)

    def _resume(self) -> None:
        """Resume as many requests as there are places, until they take these or turn out to need none."""
        self._resuming = False
        self.resume_late()
        for _ in range(min(len(self._waiting), self._limit - self._in_flight)):
            self.resume(next(iter(self._waiting)))
        if self._waiting and not self.full:
            self._resume_soon()
