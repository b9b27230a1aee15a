"""How long a connection waits for its client to ask, to send a whole request, and to read its answers."""

from __future__ import annotations

import math
from collections.abc import Callable

from tabserve.inference.settings import ServerSettings

FIRST_SECONDS = 2.0
"""How long a stopping server waits for the first request of a client that has just connected."""
LINGER_SECONDS = 2.0
"""How long an answered request may still arrive, so that its client can read the answer (RFC 9112, 9.6)."""
FEWEST_READ_BYTES = 65536
"""How many bytes of its answers a client must read within `write_timeout`."""


class Patience:
    """What a connection waits for from one client, and until when."""

    def __init__(self, settings: ServerSettings, now: Callable[[], float]) -> None:
        self._settings = settings
        self._now = now
        self._until = now() + settings.read_timeout
        self.idle = False  # whether it waits for another request
        self._unread: tuple[float, int] | None = None  # until when, and how many bytes there are

    def for_request(self) -> None:
        """Wait for the rest of a request that has begun."""
        self.idle = False
        self._until = self._now() + self._settings.read_timeout

    def for_nothing(self) -> None:
        """Wait for nothing, because it is the server's turn."""
        self._until = math.inf

    def for_another(self) -> None:
        """Wait for another request, because all are answered, unless the rest of one is still arriving."""
        if self._until == math.inf:
            self.idle = True
            self._until = self._now() + self._settings.keep_alive

    def for_first(self) -> None:
        """Wait briefly for a first request, because the server stops."""
        self._until = self._now() + FIRST_SECONDS

    def for_rest(self) -> None:
        """Wait for the rest of a request that was answered early."""
        self._until = min(self._until, self._now() + LINGER_SECONDS)

    def for_reader(self, left: int) -> None:
        """Wait for the client to read, with `left` bytes unread."""
        self._unread = self._now() + self._settings.write_timeout, left

    def read(self) -> None:
        """Stop waiting for the client to read, because it has read enough."""
        self._unread = None

    def is_over(self) -> bool:
        """Whether the time to wait is over."""
        return self._now() >= self._until

    def is_unread(self, left: int, *, closing: bool) -> bool:
        """Whether the client reads too slowly. left: how many bytes are unread now.

        closing: whether the connection ends as soon as the client has read them.
        """
        if self._unread is None:
            if closing:
                self.for_reader(left)
            return False
        until, before = self._unread
        if self._now() < until:
            return False
        if left > before - FEWEST_READ_BYTES:
            return True
        self.for_reader(left)
        return False
