"""The findings of a run, as written to results.json, and the medians and ratios drawn from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import TypeVar

import msgspec

from benchmarks.load import Measurement

CLOSED, OVERLOAD, HALF, QUARTER = 0.0, 3.0, 0.5, 0.25
"""Loads: a closed loop, or an open loop at a multiple of the closed loop's throughput."""

_T = TypeVar("_T")
AGED, FRESH = "-aged", "-fresh"
"""Suffixes of a peer's name: after a soak, and its fresh start at the same time."""


class Cell(msgspec.Struct, frozen=True):
    """What is measured: a peer, with a number of rows per request and a number of connections."""

    peer: str
    model: str
    rows: int
    encoding: str
    connections: int
    load: float = CLOSED


class Sample(msgspec.Struct, frozen=True):
    """One measurement of a cell.

    resident: bytes in RAM, every second. capacity: the throughput of which an open loop's rate is a multiple.
    descriptors: how many were open at the end. group: number of the group that was measured in turn.
    """

    cell: Cell
    round: int
    measured: Measurement
    resident: list[int] = []
    capacity: float = 0.0
    descriptors: int = 0
    group: int = 0


class Start(msgspec.Struct, frozen=True):
    """One start of a peer: seconds to the first answer, bytes in RAM after the load, an answer's largest difference."""

    peer: str
    model: str
    round: int
    seconds: float
    resident: int
    difference: float


class Failure(msgspec.Struct, frozen=True):
    """A peer that did not start, or answered wrongly, with its error."""

    peer: str
    model: str
    round: int
    error: str


class Bare(msgspec.Struct, frozen=True):
    """The median CPU seconds of one call of a bare engine."""

    model: str
    engine: str
    rows: int
    seconds: float


class Results(msgspec.Struct):
    """All findings of a run."""

    about: dict[str, str]
    samples: list[Sample] = []
    starts: list[Start] = []
    failures: list[Failure] = []
    bare: list[Bare] = []

    def measured(self, cell: Cell) -> list[Measurement]:
        """The cell's measurements, one per round."""
        return [sample.measured for sample in self.samples if sample.cell == cell]

    def comparisons(self) -> list[Results]:
        """The samples of each group in each round, which can be compared with each other."""
        keys = dict.fromkeys((sample.round, sample.group) for sample in self.samples)
        return [Results(self.about, [each for each in self.samples if (each.round, each.group) == key]) for key in keys]

    def cells(self) -> list[Cell]:
        """Every cell measured, in the order of the first measurement."""
        return list(dict.fromkeys(sample.cell for sample in self.samples))

    def median(self, cell: Cell, what: Callable[[Measurement], float]) -> float | None:
        """The median over the rounds, None if nothing was measured."""
        values = [what(measured) for measured in self.measured(cell)]
        return median(values) if values else None

    def best(
        self, cells: Sequence[Cell], what: Callable[[Measurement], float], pick: Callable[..., float] = max
    ) -> float | None:
        """The best of the cells' medians, by `max` or `min`; None if none was measured."""
        values = [value for cell in cells if (value := self.median(cell, what)) is not None]
        return pick(values) if values else None

    def start(self, peer: str, model: str, what: Callable[[Start], float]) -> float | None:
        """The median over a peer's starts."""
        values = [what(start) for start in self.starts if (start.peer, start.model) == (peer, model)]
        return median(values) if values else None


def least_disturbed(tries: Iterable[_T], measured: Callable[[_T], Measurement]) -> _T:
    """The first of some tries that other processes did not disturb, or else the least disturbed one."""
    made: list[_T] = []
    for each in tries:
        made.append(each)
        if not measured(each).disturbed:
            break
    return min(made, key=lambda each: measured(each).foreign)


def per_second(measured: Measurement) -> float:
    """Right answers per second."""
    return measured.per_second


def p50(measured: Measurement) -> float:
    """The median latency in seconds."""
    return measured.p50


def p99(measured: Measurement) -> float:
    """The 99th percentile of latency in seconds."""
    return measured.p99


def cpu(measured: Measurement) -> float:
    """CPU seconds of the server per right answer."""
    return measured.server_seconds


def ratio(value: float | None, of: float | None) -> float | None:
    """One value divided by the other, None unless both were measured."""
    return value / of if value is not None and of else None
