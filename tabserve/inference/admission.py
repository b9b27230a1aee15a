"""Admission: how many requests are worked on at once, and what they may cost in time."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from typing import Protocol

from tabserve.inference.errors import Overloaded
from tabserve.inference.metrics import Gauge, Metrics

PATIENCE_SECONDS = 0.6
"""A request waits for a place only if it is likely to be answered within this time of its arrival."""
PLACED_SECONDS = 0.3
"""No more have a place than are likely to be answered within this time. A transformer that keeps to it leaves a
predictor no reason to refuse what has already waited."""
FEWEST_PLACES = 32
"""So many requests are worked on at once however long they take: enough for a batch, or for several predictors."""
FRESH_SECONDS = 0.3
"""A request that has waited for longer gets its place before newer ones."""
REFUSALS_PER_SECOND = 1000
"""A refusal costs 30 µs, or 65 to 100 µs where a body of 64 rows comes with it: at this rate at most a tenth of a core.

At 500 a second, three times what a pipeline of 370 requests a second can take made all of them wait for seconds."""
_FADING_SECONDS = 0.5
"""After so long, what was seen of the pace counts for a third."""
_WAIT_SECONDS = 1.0
"""A request that has waited for longer is read, and refused if there is no place."""


class Waiting(Protocol):
    """A request that has come and is left unread."""

    def resume(self, waited: float) -> None:
        """Read it, which has waited for so many seconds, and answer or refuse it."""


class Pace:
    """Seconds from one answered request to the next while many are under way; 0 while nothing is known."""

    def __init__(self) -> None:
        self.forget()

    @property
    def seconds(self) -> float:
        """The mean, in which what was seen lately counts most."""
        return self._seconds / self._answered if self._answered else 0.0

    def forget(self) -> None:
        """Few are under way: how fast those are answered says nothing of how fast many are."""
        self._seconds = self._answered = 0.0
        self._unseen = 0
        self._looked: float | None = None

    def answered(self) -> None:
        """A request is answered, or given up."""
        self._unseen += 1

    def look(self, now: float) -> bool:
        """Take into account what was answered since the last look: many are, by the batch. Whether anything was."""
        if self._looked is None:
            self._looked, self._unseen = now, 0
        if not self._unseen or now <= self._looked:
            return False
        kept = math.exp((self._looked - now) / _FADING_SECONDS)
        self._seconds = self._seconds * kept + now - self._looked
        self._answered = self._answered * kept + self._unseen
        self._looked, self._unseen = now, 0
        return True


class Admission:
    """Admits up to `limit` requests at once, over all protocols; fewer where so many would take too long.

    As many as are answered within PLACED_SECONDS at the pace of the last ones, but no fewer than FEWEST_PLACES
    (J. Little, "A Proof for the Queuing Formula: L = λW", Operations Research 9 (3), 1961).

    Past that, REST requests wait unread for a place, in a queue as long as `PATIENCE_SECONDS` allow; past that, and
    over gRPC, each is refused at once. Past `REFUSALS_PER_SECOND` REST requests wait all the same: to refuse any number
    of clients that come back at once would leave the server no time to answer any.

    The newest that waits goes first, until the oldest is no longer fresh. So under overload most are answered within
    milliseconds, and by connections that the caches still hold, which makes a request of one row a tenth cheaper
    (adaptive LIFO: B. Maurer, "Fail at Scale", ACM Queue 13 (8), 2015).
    """

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self._limit = limit
        self._places = limit
        self._rejected = metrics.rejected
        self._in_flight = 0
        self._waiting: OrderedDict[Waiting, float] = OrderedDict()  # since when; the oldest first
        self._pace = Pace()
        self._resuming = False
        self._refusals_paid_until = 0.0  # in time.monotonic(); a refusal pays for 1/REFUSALS_PER_SECOND
        self.reason = "too many requests at once"
        metrics.add(
            Gauge("tabserve_requests_in_flight", "Requests admitted and not yet answered", lambda: self._in_flight),
            Gauge("tabserve_requests_waiting", "Requests that wait unread for a place", lambda: len(self._waiting)),
        )

    @property
    def full(self) -> bool:
        """Whether there is no place."""
        return self._in_flight >= self._places

    @property
    def crowded(self) -> bool:
        """Whether a request that comes now finds no place, or others that wait for one."""
        return bool(self._waiting) or self.full

    def wait(self, request: Waiting) -> bool:
        """Resume the request when there is a place for it; False where it is to be refused at once."""
        now = time.monotonic()
        if self._turns_away(now):
            return False
        if not self._waiting:
            self._look(now)
        self._waiting[request] = now
        return True

    def _turns_away(self, now: float) -> bool:
        since = next(iter(self._waiting.values()), now)
        likely = self._pace.seconds * (len(self._waiting) + self._in_flight + 1)
        return max(likely, now - since) > PATIENCE_SECONDS and self._refusals_paid_until <= now

    def forget(self, request: Waiting) -> None:
        """The request waits no longer, if it did."""
        self._waiting.pop(request, None)

    def resume(self, request: Waiting) -> None:
        """Resume at once a request that waits."""
        request.resume(time.monotonic() - self._waiting.pop(request))

    def resume_late(self) -> None:
        """Resume those that have waited for too long, place or no place."""
        now = time.monotonic()
        late = [request for request, since in self._waiting.items() if now - since > _WAIT_SECONDS]
        for request in late:
            self.resume(request)

    def count_refusal(self, protocol: str) -> None:
        """A request gets no place."""
        self._rejected.add(protocol)
        # A second's refusals may come in one burst.
        self._refusals_paid_until = max(self._refusals_paid_until, time.monotonic() - 1) + 1 / REFUSALS_PER_SECOND

    def enter(self, protocol: str, *, promised: bool = False) -> None:
        """Take a place; raises Overloaded when there is none.

        promised: the request was read because there was one, which the pace may not allow any more.
        """
        if self._in_flight >= (self._limit if promised else self._places):
            self.count_refusal(protocol)
            raise Overloaded(self.reason)
        self._in_flight += 1
        if self._in_flight > FEWEST_PLACES and not self._waiting:  # while any waits, `_resume` looks
            self._look(time.monotonic())

    def leave(self) -> None:
        """Give the place back."""
        self._in_flight -= 1
        self._pace.answered()
        if self._waiting:
            if not self._resuming:
                self._resume_soon()
        elif self._in_flight < FEWEST_PLACES:
            self._pace.forget()
            self._places = self._limit

    def _resume_soon(self) -> None:
        self._resuming = True
        asyncio.get_running_loop().call_soon(self._resume)

    def _resume(self) -> None:
        """Resume as many as there are places; until they are read and take them, or turn out to need none."""
        self._resuming = False
        now = time.monotonic()
        self._look(now)
        for _ in range(min(len(self._waiting), self._places - self._in_flight)):
            oldest = next(iter(self._waiting.values()))
            request, since = self._waiting.popitem(last=now - oldest <= FRESH_SECONDS)
            request.resume(now - since)
        if self._waiting and not self.full:
            self._resume_soon()

    def _look(self, now: float) -> None:
        """At the pace, and at how many places it allows."""
        if self._pace.look(now):
            self._places = min(self._limit, max(FEWEST_PLACES, int(PLACED_SECONDS / self._pace.seconds)))
