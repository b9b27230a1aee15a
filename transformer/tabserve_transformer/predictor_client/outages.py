"""Log when the predictor becomes unreachable and when it is back, and not once per request."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

from tabserve_transformer.predictor_client.address import Address

LATELY_SECONDS = 1.0
"""How recent an answer must be to outweigh a probe that came too late on a busy machine."""

_ANSWERS = "the predictor at %s answers"
_SILENT = "the predictor at %s does not answer: requests are refused until it does"
_FAILING = "the predictor at %s fails in requests, again and again: they are refused, but for one a second that tries"
_OTHER = "there is no predictor of this release at %s: requests are refused until there is"

logger = logging.getLogger(__name__)


class Outages:
    """The state of one predictor that was last logged. name: its host and port."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._told = ""
        self._since = 0.0  # when that was logged

    def look(self, addresses: Collection[Address], heard: float) -> None:
        """Log what has changed since the last look. heard: when a predictor of this release last answered."""
        now = time.monotonic()
        found = self._found(addresses, now - heard < LATELY_SECONDS)
        if found != self._told:
            level = logging.INFO if found == _ANSWERS else logging.WARNING
            logger.log(level, found, self._name)
            self._told, self._since = found, now

    def _found(self, addresses: Collection[Address], lately: bool) -> str:
        own = [address for address in addresses if address.own]
        if not own:
            return _OTHER if any(address.own is False for address in addresses) else _SILENT
        if not lately and not any(address.ready for address in own):
            return _SILENT
        # An open breaker does not know that a predictor is back until the next request tries.
        fails = all(address.breaker.is_open for address in own)
        since_then = max(address.breaker.failed_at for address in own) > self._since
        new = self._told == _FAILING or (self._told == _ANSWERS and since_then)
        return _FAILING if fails and new else _ANSWERS
