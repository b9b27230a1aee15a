"""Entries on their way from requests to the writer's thread, with exact counts of what became of their records."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

from tabserve.arrays import Array
from tabserve.decision_log.entry import Entry

Result: TypeAlias = Literal["written", "sampled", "dropped", "failed"]
RESULTS: tuple[Result, ...] = ("written", "sampled", "dropped", "failed")
CLOSING_PAUSE_SECONDS = 0.25


class Kept(NamedTuple):
    """An entry with records to be written.

    weights: FP64 [rows], 0 for a record that is not kept; None for 1 in every row. rows: how many are kept.
    nbytes: the entry's. at: when it was put, in seconds of time.monotonic().
    """

    entry: Entry
    weights: Array | None
    rows: int
    nbytes: int
    at: float


class Buffer:
    """Entries that wait, bounded in rows and bytes.

    Each record that was put is waiting, with the writer, or counted in exactly one result.
    """

    def __init__(self, most_rows: int, most_bytes: int) -> None:
        self._most_rows, self._most_bytes = most_rows, most_bytes
        self._lock = threading.Lock()
        self._wake, self._end = threading.Event(), threading.Event()
        self._waiting: deque[Kept] = deque()
        self._counts: dict[str, int] = dict.fromkeys(RESULTS, 0)
        self._rows = self._bytes = self._with_writer = 0
        self._full = self._closed = False

    @property
    def counts(self) -> Mapping[str, int]:
        """Records by what became of them; once closed, their sum is all that was put."""
        with self._lock:
            return self._counts.copy()

    @property
    def rows(self) -> int:
        """How many records are waiting, or with the writer."""
        return self._rows + self._with_writer

    @property
    def closing(self) -> bool:
        """Whether the writer is to write everything now, and to end."""
        return self._end.is_set()

    @property
    def closed(self) -> bool:
        """Whether everything is counted, and what the writer still does is not."""
        return self._closed

    def put(self, kept: Kept) -> None:
        """Take an entry, or count it as dropped if there is no room."""
        with self._lock:
            self._counts["sampled"] += len(kept.entry) - kept.rows
            if not kept.rows:
                return
            full = self._rows + kept.rows > self._most_rows or self._bytes + kept.nbytes > self._most_bytes
            if full or self._closed:
                self._counts["dropped"] += kept.rows
                self._full = True
                return
            self._waiting.append(kept)
            self._rows += kept.rows
            self._bytes += kept.nbytes
            half = 2 * self._rows > self._most_rows or 2 * self._bytes > self._most_bytes
        if half and not self._wake.is_set():
            self._wake.set()

    def take(self, most_rows: int) -> list[Kept]:
        """The entries that have waited longest, about this many rows, which the writer then has to settle."""
        taken: list[Kept] = []
        with self._lock:
            rows = 0
            while self._waiting and rows < most_rows:
                taken.append(self._waiting.popleft())
                rows += taken[-1].rows
            self._rows -= rows
            self._bytes -= sum(kept.nbytes for kept in taken)
            self._with_writer += rows
            self._full = False
        return taken

    def settle(self, result: Result, rows: int) -> None:
        """Count rows that the writer had."""
        with self._lock:
            if not self._closed:
                self._with_writer -= rows
                self._counts[result] += rows

    def has_room(self) -> bool:
        """Whether nothing was dropped since entries were last taken."""
        return not self._full

    def wait(self, seconds: float) -> None:
        """Return after a while; sooner if the buffer is half full, or is closing."""
        self._wake.wait(seconds)
        if not self.closing:
            self._wake.clear()

    def pause(self, seconds: float) -> None:
        """Return after a while, however full the buffer is; soon after it is closing."""
        if self._end.wait(seconds):
            time.sleep(min(seconds, CLOSING_PAUSE_SECONDS))

    def close(self) -> None:
        """Tell the writer to write everything and to end."""
        self._end.set()
        self._wake.set()

    def give_up(self) -> None:
        """Count everything that is waiting, or with the writer, as dropped; what is put later is dropped as well."""
        with self._lock:
            self._counts["dropped"] += self._rows + self._with_writer
            self._waiting.clear()
            self._rows = self._bytes = self._with_writer = 0
            self._closed = True
