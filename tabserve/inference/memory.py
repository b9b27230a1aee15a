"""How much memory there is, and how it is shared among what comes and goes."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from tabserve.inference.metrics import Gauge, Metrics

PART = 8
"""Of the memory that loading has left, an eighth is for bytes in transit.

A message over gRPC is there four times over: as it came, as bytes, as a message and as tensors. As much again is for
headers, small requests and the work itself.
"""
FREE_BYTES = 32 * 2**10
"""A message of no more bytes is not counted: that many connections have that much is taken care of."""
PATIENCE_SECONDS = 0.5
"""While others wait for memory, a body that has not gone on coming for longer is given up, or an answer being read."""
FEW_WAITING = 16
"""Of a message over gRPC it can't be seen whether it goes on: where so many wait, it is given half the time."""
LEAST_PATIENCE_SECONDS = 0.2
WAIT_SECONDS = 2.0
"""What has waited for longer is refused."""
MOST_WAITING = 1024
"""Where more wait, the oldest is refused."""
LOOK_SECONDS = 0.02
TRIMMED_BYTES = 8 * 2**20
"""After more has been in transit at once, freed memory is handed back to the kernel."""
RESTS = 3
"""It is handed back so many times, a sweep apart."""
MAPPED_BYTES = 2**20
"""What is larger is mapped by itself, and so is back with the kernel as soon as it is freed."""

_NO_LIMIT = 2**60
_M_MMAP_THRESHOLD = -3


class Share:
    """The memory of one message: while it comes, while it is worked on, or while it is sent as an answer.

    here: whether it has been granted. blind: whether it can't be seen how the message goes on.
    """

    __slots__ = ("_budget", "here", "since", "size")

    blind = False

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.here = False
        self.since = 0.0
        self.size = 0

    def granted(self) -> None:
        """It is granted, which it was not at once."""

    def lost(self) -> None:
        """It has to be given up, or is refused; it is over then."""

    def ask(self, size: int) -> None:
        """Ask for so many bytes: they are `here`, or to be waited for."""
        self._budget.ask(self, size)

    def goes_on(self) -> None:
        """Some more of the message has come."""
        self.since = self._budget.now()

    def work(self, size: int) -> None:
        """The message is whole, and of this size: from now on it is not given up, and not counted where it is small."""
        if size > FREE_BYTES:
            self._budget.hold(self, size)
        else:
            self._budget.let_go(self)

    def send(self, size: int) -> None:
        """So many bytes wait for the client to read them."""
        self._budget.hold(self, size, moves=True)

    def give_back(self) -> None:
        """The message is done with. To give back twice is to give back once."""
        self._budget.let_go(self)


class Budget:
    """Bytes that requests and answers may take at once.

    A message is granted all that it may take before it is read, so none that has some waits for more. One that alone is
    in transit is always granted. Of those that wait the newest goes first, and what is slow makes room: so however many
    clients send nothing more, the next request is read after a moment.
    """

    def __init__(self, capacity: int, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self.capacity = capacity
        self.now = clock
        self._used = self._most = self._rests = 0
        self._moving: dict[Share, None] = {}  # they come, or are sent
        self._waiting: OrderedDict[Share, None] = OrderedDict()  # the oldest first
        self._timer: asyncio.TimerHandle | None = None
        metrics.add(
            Gauge("tabserve_transit_bytes", "Bytes granted to large requests and answers", lambda: self._used),
            Gauge("tabserve_transit_waiting", "Large requests that wait for memory", lambda: len(self._waiting)),
        )

    def ask(self, share: Share, size: int) -> None:
        """Grant the share so many bytes, now or when there are as many."""
        share.size, share.since = size, self.now()
        if self._fits(size):
            self._grant(share)
            return
        self._waiting[share] = None
        if len(self._waiting) > MOST_WAITING:
            self._lose(next(iter(self._waiting)))
        self._look_later()

    def hold(self, share: Share, size: int, *, moves: bool = False) -> None:
        """The share is of this size now, whether or not it fits."""
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
        """The share is over."""
        if not share.here:
            self._waiting.pop(share, None)
            return
        share.here = False
        self._moving.pop(share, None)
        self._used -= share.size
        if self._waiting:
            self._grant_waiting()

    def rested(self) -> bool:
        """Whether nothing is in transit, after much was; a few times, as gRPC is not done with it at once."""
        if self._used or self._most < TRIMMED_BYTES:
            return False
        self._rests += 1
        if self._rests == RESTS:
            self._rests = self._most = 0
        return True

    @property
    def _pressed(self) -> bool:
        return bool(self._waiting) or self._used > self.capacity

    def _fits(self, size: int) -> bool:
        return not self._used or self._used + size <= self.capacity

    def _grant(self, share: Share) -> None:
        share.here = True
        self._used += share.size
        if self._used > self._most:
            self._most = self._used
        self._moving[share] = None

    def _grant_waiting(self) -> None:
        while self._waiting and self._fits(next(reversed(self._waiting)).size):
            share, _ = self._waiting.popitem()
            share.since = self.now()
            self._grant(share)
            share.granted()

    def _lose(self, share: Share) -> None:
        share.lost()
        if share.blind and share.here:
            self._moving.pop(share, None)  # gRPC goes on to receive what it has begun, until the call is over
        else:
            self.let_go(share)

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self.look)

    def look(self) -> None:
        """Give up what is slow while others wait, and refuse what has waited for long."""
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
    """How many bytes may be in transit, now that all is loaded; `limit`: how many the process may have, 0 for all."""
    return max(0, (limit or limit_bytes()) - resident_bytes()) // PART


def limit_bytes(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """The memory that the process may have: the least of its control groups' limits and the machine's memory."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *(limit for file in _files(proc, cgroups) if (limit := _read(file)))])


def resident_bytes() -> int:
    """The memory that the process has."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def trim() -> None:
    """Hand what is not needed any more back to the kernel, where the C library can (glibc's malloc_trim)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def map_large() -> None:
    """Have large memory mapped by itself; otherwise glibc moves that limit up to 32 MiB (mallopt(3))."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)


def _files(proc: Path, cgroups: Path) -> list[Path]:
    """Where the limits stand: of every group from the process's own to the root, of version 2 and 1 (cgroups(7))."""
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
