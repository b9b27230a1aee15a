"""How long a connection waits for its client: to ask, to send the whole of a request, and to read its answers."""

from __future__ import annotations

import math
from collections.abc import Callable

from tabserve.inference.settings import ServerSettings

FIRST_SECONDS = 2.0
"""How long a server that stops waits for the first request of a client that has just connected."""
LINGER_SECONDS = 2.0
"""How long a request that is answered may go on coming, so that its client can read the answer (RFC 9112, 9.6)."""
FEWEST_READ_BYTES = 65536
"""How much of what it was sent a client must read within `write_timeout`."""


class Patience:
    """What one client is waited for, and until when."""

    def __init__(self, settings: ServerSettings, now: Callable[[], float]) -> None:
        self._settings = settings
        self._now = now
        self._until = now() + settings.read_timeout
        self.idle = False  # what is waited for is another request
        self._unread: tuple[float, int] | None = None  # until when, and how many bytes there are

    def for_request(self) -> None:
        """A request has begun."""
        self.idle = False
        self._until = self._now() + self._settings.read_timeout

    def for_nothing(self) -> None:
        """It is the server's turn."""
        self._until = math.inf

    def for_another(self) -> None:
        """All is answered; nothing changes while what is left of a request is still coming."""
        if self._until == math.inf:
            self.idle = True
            self._until = self._now() + self._settings.keep_alive

    def for_first(self) -> None:
        """The server stops, and the client has not asked yet."""
        self._until = self._now() + FIRST_SECONDS

    def for_rest(self) -> None:
        """A request is answered before all of it has come."""
        self._until = min(self._until, self._now() + LINGER_SECONDS)

    def for_reader(self, left: int) -> None:
        """So many bytes wait for the client to read them."""
        self._unread = self._now() + self._settings.write_timeout, left

    def read(self) -> None:
        """The client has read enough of them."""
        self._unread = None

    def is_over(self) -> bool:
        """Whether what is waited for is too late."""
        return self._now() >= self._until

    def is_unread(self, left: int, *, closing: bool) -> bool:
        """Whether the client reads too slowly; `left`: how many bytes wait for it now.

        closing: whether the connection ends as soon as it has read them.
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
