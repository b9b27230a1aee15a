"""What a run found, as it is written to results.json, and the medians and ratios drawn from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median

import msgspec

from benchmarks.load import Measurement

CLOSED, OVERLOAD, HALF, QUARTER = 0.0, 3.0, 0.5, 0.25
"""Loads: a closed loop, or an open one at so many times the closed loop's throughput."""

AGED, FRESH = "-aged", "-fresh"
"""Behind a peer's name: after a soak, beside a fresh start of it."""


class Cell(msgspec.Struct, frozen=True):
    """What is measured: a peer asked for so many rows a request over so many connections."""

    peer: str
    model: str
    rows: int
    encoding: str
    connections: int
    load: float = CLOSED


class Sample(msgspec.Struct, frozen=True):
    """One measurement of a cell.

    resident: bytes in RAM, every second of it. capacity: what an open loop's rate is a multiple of.
    descriptors: open at its end. group: of the peers that were measured one right after the other.
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
    """A peer that did not start or answer rightly, with its error."""

    peer: str
    model: str
    round: int
    error: str


class Bare(msgspec.Struct, frozen=True):
    """Median seconds of CPU of one call of an engine alone."""

    model: str
    engine: str
    rows: int
    seconds: float


class Results(msgspec.Struct):
    """All that a run found."""

    about: dict[str, str]
    samples: list[Sample] = []
    starts: list[Start] = []
    failures: list[Failure] = []
    bare: list[Bare] = []

    def measured(self, cell: Cell) -> list[Measurement]:
        """The cell's measurements, one a round."""
        return [sample.measured for sample in self.samples if sample.cell == cell]

    def comparisons(self) -> list[Results]:
        """The samples of each group in each round, without the rest: what can be compared."""
        keys = dict.fromkeys((sample.round, sample.group) for sample in self.samples)
        return [Results(self.about, [each for each in self.samples if (each.round, each.group) == key]) for key in keys]

    def cells(self) -> list[Cell]:
        """Every cell measured, in the order of the first measurement."""
        return list(dict.fromkeys(sample.cell for sample in self.samples))

    def median(self, cell: Cell, what: Callable[[Measurement], float]) -> float | None:
        """The median over the rounds; None where nothing was measured."""
        values = [what(measured) for measured in self.measured(cell)]
        return median(values) if values else None

    def best(
        self, cells: Sequence[Cell], what: Callable[[Measurement], float], pick: Callable[..., float] = max
    ) -> float | None:
        """The best of the cells' medians, by `max` or `min`; None where none was measured."""
        values = [value for cell in cells if (value := self.median(cell, what)) is not None]
        return pick(values) if values else None

    def start(self, peer: str, model: str, what: Callable[[Start], float]) -> float | None:
        """The median over a peer's starts."""
        values = [what(start) for start in self.starts if (start.peer, start.model) == (peer, model)]
        return median(values) if values else None


def least_disturbed(tries: Iterable[Sample]) -> Sample:
    """The first that others did not disturb; where they disturbed all, the one they disturbed least."""
    made: list[Sample] = []
    for sample in tries:
        made.append(sample)
        if not sample.measured.disturbed:
            break
    return min(made, key=lambda sample: sample.measured.foreign)


def per_second(measured: Measurement) -> float:
    """Right answers a second."""
    return measured.per_second


def p50(measured: Measurement) -> float:
    """Median seconds."""
    return measured.p50


def p99(measured: Measurement) -> float:
    """99th percentile of seconds."""
    return measured.p99


def cpu(measured: Measurement) -> float:
    """Seconds of the server's CPU for a right answer."""
    return measured.server_seconds


def ratio(value: float | None, of: float | None) -> float | None:
    """One by the other, where both were measured."""
    return value / of if value is not None and of else None
