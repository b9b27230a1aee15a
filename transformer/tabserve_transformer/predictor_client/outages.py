"""Log when the predictor, or one of its addresses, is lost, failing or back, and not once per request."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection

from tabserve.inference.logs import QUIET_SECONDS, tell
from tabserve_transformer.predictor_client.address import Address

LATELY_SECONDS = 1.0
"""How recent an answer must be to outweigh a probe that came too late on a busy machine."""

LINES = {
    "predictor_found": (logging.INFO, "the predictor at %s answers"),
    "predictor_back": (logging.INFO, "the predictor at %s answers again"),
    "predictor_gone": (logging.WARNING, "the predictor at %s does not answer: requests are refused until it does"),
    "predictor_failing": (
        logging.WARNING,
        "the predictor at %s fails in requests, again and again: they are refused, but for one a second that tries",
    ),
    "predictor_missing": (
        logging.WARNING,
        "there is no predictor of this release at %s: requests are refused until there is",
    ),
    "address_ready": (logging.INFO, "address %s of the predictor is ready"),
    "address_lost": (logging.WARNING, "address %s of the predictor is lost: no connection to it"),
    "address_hung": (logging.WARNING, "address %s of the predictor hangs: it takes connections and answers nothing"),
    "address_unready": (logging.WARNING, "address %s of the predictor says that it is not ready"),
    "breaker_open": (logging.WARNING, "address %s of the predictor gets one request a second, because others failed"),
    "breaker_closed": (logging.INFO, "address %s of the predictor gets requests again"),
}
"""The lines: level and message. `predictor_` ones are about all addresses together."""

_FOUND = ("predictor_found", "predictor_back")

logger = logging.getLogger(__name__)


class Told:
    """What was last told about one thing, whose state may change more often than that is worth a line."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._changes = 0
        self._seen = ""
        self._when: dict[str, float] = {}
        self.event = ""

    @property
    def since(self) -> float:
        """When the state was told."""
        return self._when.get(self.event, -math.inf)

    def see(self, event: str) -> None:
        """Log that this is the state, if it is new and was not told in the last QUIET_SECONDS."""
        if event != self._seen:
            self._seen = event
            self._changes += 1
        now = self._clock()
        if event == self.event or now - self._when.get(event, -math.inf) < QUIET_SECONDS:
            return
        suppressed = {"suppressed": self._changes - 1} if self._changes > 1 else {}
        self.event, self._when[event], self._changes = event, now, 0
        level, message = LINES[event]
        tell(logger, level, event, message % self._name, address=self._name, **suppressed)


class _OfAddress:
    """What was told about one address, and about its breaker."""

    def __init__(self, address: Address) -> None:
        self._state, self._breaker = Told(str(address.endpoint)), Told(str(address.endpoint))

    def look(self, address: Address) -> None:
        """Log what has changed."""
        self._state.see("address_ready" if address.ready else f"address_{address.trouble}")
        if address.breaker.is_open:
            self._breaker.see("breaker_open")
        elif self._breaker.event:
            self._breaker.see("breaker_closed")


class Outages:
    """The state of one predictor that was last logged. name: its host and port."""

    def __init__(self, name: str) -> None:
        self._all = Told(name)
        self._each: dict[Address, _OfAddress] = {}

    def look(self, addresses: Collection[Address], heard: float) -> None:
        """Log what has changed since the last look. heard: when a predictor of this release last answered."""
        own = [address for address in addresses if address.own]
        self._each = {address: self._each.get(address) or _OfAddress(address) for address in own}
        for address, told in self._each.items():
            told.look(address)
        foreign = any(address.own is False for address in addresses)
        found = self._found(own, foreign, time.monotonic() - heard < LATELY_SECONDS)
        if found == "predictor_found" and self._all.event not in ("", "predictor_found"):
            found = "predictor_back"
        self._all.see(found)

    def _found(self, own: Collection[Address], foreign: bool, lately: bool) -> str:
        """The event that says what there is. foreign: whether a predictor of another release answers."""
        if not own:
            return "predictor_missing" if foreign else "predictor_gone"
        if not lately and not any(address.ready for address in own):
            return "predictor_gone"
        # An open breaker does not know that a predictor is back until the next request tries.
        fails = all(address.breaker.is_open for address in own)
        since_then = max(address.breaker.failed_at for address in own) > self._all.since
        new = self._all.event == "predictor_failing" or (self._all.event in _FOUND and since_then)
        return "predictor_failing" if fails and new else "predictor_found"
