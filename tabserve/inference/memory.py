"""Measure how much memory there is, and share it among requests and answers in transit."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from tabserve.inference.logs import limited
from tabserve.inference.metrics import Gauge, Metrics

PART = 8
"""Which part of the memory that loading has left is for bytes in transit: an eighth.

A gRPC message is in memory four times: as it arrived, as bytes, as a message and as tensors. The same again is for
headers, small requests and the work itself.
"""
FREE_BYTES = 32 * 2**10
"""The size up to which a message is not counted, because the limit on connections covers it."""
PATIENCE_SECONDS = 0.5
"""How long a body may stop arriving, or an answer stop being read, while others wait for memory."""
FEW_WAITING = 16
"""How many waiting messages halve the time for a gRPC message, whose progress can't be seen."""
LEAST_PATIENCE_SECONDS = 0.2
WAIT_SECONDS = 2.0
"""How long a message waits before it is refused."""
MOST_WAITING = 1024
"""The most waiting messages; beyond it the oldest is refused."""
LOOK_SECONDS = 0.02
TRIMMED_BYTES = 8 * 2**20
"""Freed memory is given back to the kernel when the process has grown by this much."""
YOUNG_OBJECTS = 20_000
"""How many new objects make the garbage collector run.

With much under way at a time, Python's own threshold makes it run often and in vain (`benchmarks/NOTES.md`).
"""
TRIMS = 3
"""How many times it is given back then, a sweep apart, because gRPC takes a while to free it."""
MAPPED_BYTES = 2**20
"""Larger blocks are mapped separately, so they return to the kernel as soon as they are freed."""

_NO_LIMIT = 2**60
_M_MMAP_THRESHOLD = -3

logger = logging.getLogger(__name__)


class Share:
    """The memory of one message, while it arrives, is worked on, or is sent as an answer.

    here: whether the memory has been granted. blind: whether the message's progress can't be seen.
    """

    __slots__ = ("_budget", "here", "since", "size")

    blind = False

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.here = False
        self.since = 0.0
        self.size = 0

    def granted(self) -> None:
        """Called when the memory is granted, if that was not at once."""

    def lost(self) -> None:
        """Called when the memory must be given up, or is refused; the share then ends."""

    def ask(self, size: int) -> None:
        """Ask for `size` bytes, which are `here` at once or come later."""
        self._budget.ask(self, size)

    def goes_on(self) -> None:
        """Note that more of the message has arrived."""
        self.since = self._budget.now()

    def work(self, size: int) -> None:
        """Note that the message is whole and has this size; it is not given up any more, nor counted if it is small."""
        if size > FREE_BYTES:
            self._budget.hold(self, size)
        else:
            self._budget.let_go(self)

    def send(self, size: int) -> None:
        """Wait for the client to read, with `left` bytes unread."""
        self._budget.hold(self, size, moves=True)

    def give_back(self) -> None:
        """Give the memory back, after the message; doing so twice has no further effect."""
        self._budget.let_go(self)


class Budget:
    """The bytes that requests and answers may take at once.

    A message is granted everything that it may take before it is read, so none waits for more while it holds some. A
    message is always granted if it is the only one in transit. The newest waiting one goes first, and slow ones make
    room, so the next request is read after a moment however many clients send nothing more.
    """

    def __init__(self, capacity: int, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self.capacity = capacity
        self.now = clock
        self._used = 0
        self._moving: dict[Share, None] = {}  # arriving, or being sent
        self._waiting: OrderedDict[Share, None] = OrderedDict()  # the oldest first
        self._timer: asyncio.TimerHandle | None = None
        metrics.add(
            Gauge("tabserve_transit_bytes", "Bytes granted to large requests and answers", lambda: self._used),
            Gauge("tabserve_transit_waiting", "Large requests that wait for memory", lambda: len(self._waiting)),
        )

    def ask(self, share: Share, size: int) -> None:
        """Grant the share `size` bytes, now or when they are free."""
        share.size, share.since = size, self.now()
        if self._fits(size):
            self._grant(share)
            return
        self._waiting[share] = None
        if len(self._waiting) > MOST_WAITING:
            self._lose(next(iter(self._waiting)))
        self._look_later()

    def hold(self, share: Share, size: int, *, moves: bool = False) -> None:
        """Set the share's size, whether or not it fits."""
        self._waiting.pop(share, None)
        if share.here:
            self._used -= share.size
        share.size, share.since = size, self.now()
        self._grant(share)
        if not moves:
            del self._moving[share]
        elif self._pressed:
            self._look_later()
        if self._waiting:
            self._grant_waiting()

    def let_go(self, share: Share) -> None:
        """End the share."""
        if not share.here:
            self._waiting.pop(share, None)
            return
        share.here = False
        self._moving.pop(share, None)
        self._used -= share.size
        if self._waiting:
            self._grant_waiting()

    @property
    def idle(self) -> bool:
        """Whether nothing large is in transit."""
        return not self._used

    @property
    def _pressed(self) -> bool:
        return bool(self._waiting) or self._used > self.capacity

    def _fits(self, size: int) -> bool:
        return not self._used or self._used + size <= self.capacity

    def _grant(self, share: Share) -> None:
        share.here = True
        self._used += share.size
        self._moving[share] = None

    def _grant_waiting(self) -> None:
        while self._waiting and self._fits(next(reversed(self._waiting)).size):
            share, _ = self._waiting.popitem()
            share.since = self.now()
            self._grant(share)
            share.granted()

    def _lose(self, share: Share) -> None:
        message = f"over {self.capacity} bytes in transit: large requests are refused"
        limited.tell(logger, logging.WARNING, "memory_full", message, most_bytes=self.capacity)
        share.lost()
        if share.blind and share.here:
            self._moving.pop(share, None)  # gRPC goes on to receive what it has begun, until the call is over
        else:
            self.let_go(share)

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self.look)

    def look(self) -> None:
        """Give up slow messages while others wait, and refuse those that have waited long."""
        self._timer = None
        now = self.now()
        hurried = now - max(LEAST_PATIENCE_SECONDS, PATIENCE_SECONDS / (1 + len(self._waiting) / FEW_WAITING))
        for share in [*self._moving]:
            if self._pressed and share.since < (hurried if share.blind else now - PATIENCE_SECONDS):
                self._lose(share)
        while self._waiting and (oldest := next(iter(self._waiting))).since < now - WAIT_SECONDS:
            self._lose(oldest)
        if self._pressed:
            self._look_later()


def capacity(limit: int) -> int:
    """How many bytes may be in transit, once everything is loaded. limit: the process's memory."""
    return max(0, limit - resident_bytes()) // PART


def limit_bytes(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """The memory that the process may have: the minimum of its control groups' limits and the machine's memory."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *(limit for file in _files(proc, cgroups) if (limit := _read(file)))])


def resident_bytes() -> int:
    """The memory that the process has now."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Growth:
    """Tells when the process has grown so much that giving freed memory back is worth it, whatever it was used for."""

    def __init__(self, resident: Callable[[], int] = resident_bytes) -> None:
        self._resident = resident
        self._before = resident()
        self._trims = 0

    def calls_for_trim(self) -> bool:
        """Whether to give memory back now; true TRIMS times after growth, which then counts as the process's size."""
        now = self._resident()
        self._before = min(self._before, now)
        if not self._trims and now - self._before < TRIMMED_BYTES:
            return False
        self._trims = (self._trims + 1) % TRIMS
        if not self._trims:
            self._before = now
        return True


def settle() -> None:
    """Keep the garbage collector from what is loaded by now; among that, each time would take tens of milliseconds."""
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


def trim() -> None:
    """Give freed memory back to the kernel, if the C library can (glibc's malloc_trim)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def map_large() -> None:
    """Have large blocks mapped separately; otherwise glibc raises the size for it up to 32 MiB (mallopt(3))."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)


def _files(proc: Path, cgroups: Path) -> list[Path]:
    """The files with the limits of every group from the process's own to the root, of version 2 and 1 (cgroups(7))."""
    try:
        lines = (proc / "self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    files = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, name = (cgroups / "memory", "memory.limit_in_bytes") if controllers else (cgroups, "memory.max")
        group = root / path.lstrip("/")
        files += [folder / name for folder in (group, *group.parents) if folder.is_relative_to(root)]
    return files


def _read(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) < _NO_LIMIT else None
