"""Receive copies of requests from the gateway, ask both slots the same, and compare their answers.

The gateway waits for no answer, so each copy is answered at once. What waits to be asked is bounded, and whatever finds
no room is dropped and counted: a slot that hangs costs copies, and neither memory nor a live request.
"""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable

from tabserve.client.address import parse
from tabserve.inference.request_ids import REQUEST_ID
from tabserve.inference.rest.parser import Request
from tabserve.rollout.compare import Copies
from tabserve.rollout.receiver import Receiver
from tabserve.rollout.slots import Copy, Slot

MOST_WAITING, MOST_WAITING_BYTES = 256, 8 << 20
"""The most copies that wait to be asked, and the most bytes of them."""
WORKERS = 4
"""How many copies are asked at once."""
_INFERENCE = re.compile(rb"/v1/models/[^/]+:predict|/v2/models/[^/]+(/versions/[^/]+)?/infer")


class Rate:
    """Allows so many a second, and as many at once. now: a clock in seconds."""

    def __init__(self, per_second: float, now: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._now = per_second, now
        self._left, self._since = max(per_second, 1.0), now()

    def allows(self) -> bool:
        """Whether one more is allowed, which is then counted."""
        since, self._since = self._since, self._now()
        self._left = min(self._left + (self._since - since) * self._per_second, max(self._per_second, 1.0))
        allowed = self._left >= 1
        self._left -= allowed
        return allowed


class Waiting:
    """Copies that wait to be asked, at most so many, and with bodies of at most so many bytes."""

    def __init__(self, most: int = MOST_WAITING, most_bytes: int = MOST_WAITING_BYTES) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._copies: deque[Copy] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, copy: Copy) -> bool:
        """Let a copy wait; returns whether there is room for it."""
        with self._changed:
            if len(self._copies) >= self._most or self._bytes + len(copy.body) > self._most_bytes:
                return False
            self._copies.append(copy)
            self._bytes += len(copy.body)
            self._changed.notify()
            return True

    def take(self) -> Copy | None:
        """Wait for a copy; None once nothing is to be asked any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._copies)
            if self._closed:
                return None
            copy = self._copies.popleft()
            self._bytes -= len(copy.body)
            return copy

    def close(self) -> None:
        """Ask no more; what waits is forgotten."""
        with self._changed:
            self._closed = True
            self._copies.clear()
            self._changed.notify_all()


class Shadow:
    """Receives copies on a port, and counts what both slots answer.

    stable, canary: the slots' URLs, below which the paths of copies are. copies: counts to go on from. per_second: how
    many copies are asked at most. timeout: of a question, in seconds. tls: for slots with https.
    """

    def __init__(
        self,
        stable: str,
        canary: str,
        copies: Copies | None = None,
        *,
        per_second: float = 20.0,
        timeout: float = 5.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Raises ServiceError if a URL is none."""
        self._slots = parse(stable), parse(canary)
        self._copies = Copies() if copies is None else copies.copy()
        self._timeout, self._tls = timeout, tls
        self._rate, self._waiting, self._lock = Rate(per_second), Waiting(), threading.Lock()
        self._workers = [threading.Thread(target=self._work, name=f"shadow-{at}", daemon=True) for at in range(WORKERS)]
        self._receiver = Receiver(self._take)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._receiver.port

    def start(self, port: int, host: str = "0.0.0.0") -> None:
        """Listen, and ask. port: 0 for any that is free. Raises OSError if it is taken."""
        self._receiver.start(host, port)
        for worker in self._workers:
            worker.start()

    def stop(self) -> None:
        """Listen no more, and end after the questions under way."""
        self._receiver.stop()
        self._waiting.close()
        for worker in self._workers:
            worker.join()

    def copies(self) -> Copies:
        """What was counted so far."""
        with self._lock:
            return self._copies.copy()

    def _count(self, name: str) -> None:
        with self._lock:
            setattr(self._copies, name, getattr(self._copies, name) + 1)

    def _take(self, request: Request, *, kept: bool) -> None:
        """Count a copy that has come, and let it wait. A probe of health asks for `/`, and is none."""
        if request.path == b"/":
            return
        self._count("received")
        if request.headers.get(b"content-type", b"").startswith(b"application/grpc"):
            self._count("grpc")
        if request.method != b"POST" or not _INFERENCE.fullmatch(request.path):
            self._count("unread")
        elif not kept:
            self._count("large")
        elif not self._rate.allows():
            self._count("limited")
        elif not self._waiting.put(_copy(request)):
            self._count("dropped")

    def _work(self) -> None:
        """Ask about one copy after the other; in turns stable first, or the canary."""
        slots = [Slot(address, self._timeout, self._tls) for address in self._slots]
        turn = 0
        while (copy := self._waiting.take()) is not None:
            first, turn = turn, 1 - turn
            answers = {at: slots[at].ask(copy) for at in (first, turn)}
            with self._lock:
                self._copies.add(answers[0], answers[1], copy.headers.get(REQUEST_ID, ""))
        for slot in slots:
            slot.close()


def _copy(request: Request) -> Copy:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.items()}
    return Copy(request.path.decode("latin-1"), headers, request.body)
