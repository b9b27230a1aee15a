"""The turns of a stream: read, decide, deliver; again from the last commit where something failed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from tabserve.inference.admin import Heartbeat
from tabserve.stream import messages
from tabserve.stream.clients import Link, Undone
from tabserve.stream.deciding import Deciding, Poll
from tabserve.stream.delivery import Delivery
from tabserve.stream.instruments import Instruments
from tabserve.stream.messages import Incoming
from tabserve.stream.reading import Reader

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 5.0
"""How long to wait before messages are read again, at first and at most."""


class Worker:
    """One member of a stream's group.

    record: takes what was committed, and when it was decided, for the decision log.
    """

    def __init__(
        self,
        reader: Reader,
        deciding: Deciding,
        delivery: Delivery,
        link: Link,
        instruments: Instruments,
        record: Callable[[Poll, float], None],
    ) -> None:
        self._reader, self._deciding, self._delivery = reader, deciding, delivery
        self._link, self._instruments, self._record = link, instruments, record

    def run(self, stop: threading.Event, heart: Heartbeat) -> None:
        """Decide until the event. Raises Ended if a client cannot go on."""
        pause = FIRST_PAUSE_SECONDS
        while not stop.is_set():
            heart.beat()
            given = self._reader.read()
            if not given or self._is_done(given):
                pause = FIRST_PAUSE_SECONDS
            elif not stop.wait(pause):
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _is_done(self, given: Sequence[Incoming]) -> bool:
        """Whether messages are decided and committed; they will be read again if not."""
        seconds, ends = time.time(), messages.ends(given)
        poll = self._deciding(given, seconds)
        try:
            self._delivery.deliver(poll.outgoing, ends)
        except Undone as error:
            self._link.lost(str(error))
            self._reader.rewind(messages.starts(given))
            return False
        self._link.found()
        self._reader.committed(ends)
        self._instruments.committed(poll, time.time() - np.array([each.time for each in given]))
        self._record(poll, seconds)
        return True
