"""What must be shown (issue 6): ratios within one run, each with a target and a stretch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.results import Cell, Results, Start, p50, per_second, ratio

Value = Callable[[Results], float | None]


class Target(NamedTuple):
    """A figure and where it should be: at least `target` and `stretch`, or at most where these fall."""

    title: str
    value: Value
    target: float
    stretch: float
    unit: str = ""

    @property
    def at_most(self) -> bool:
        """Whether less is better."""
        return self.stretch < self.target

    def verdict(self, got: float | None) -> str:
        """`stretch`, `met`, `missed` or `not measured`."""
        if got is None:
            return "not measured"
        for bound, word in ((self.stretch, "stretch"), (self.target, "met")):
            if got <= bound if self.at_most else got >= bound:
                return word
        return "missed"


STOCK = ("kserve-custom", "kserve-quiet", "kserve-xgbserver", "mlserver", "mlserver-serial", "mlserver-batching")
SERVERS = (*STOCK, "fastapi")


def _cells(peers: tuple[str, ...], rows: int, encoding: str, connections: int, model: str = "xgboost") -> list[Cell]:
    return [Cell(peer, model, rows, encoding, connections) for peer in peers]


def throughput(peers: tuple[str, ...], rows: int = 1, ours: str = "json", theirs: str = "json") -> Value:
    """Ours by the best of the peers', over 32 connections."""

    def value(results: Results) -> float | None:
        (own,) = _cells(("tabserve",), rows, ours, 32)
        return ratio(results.median(own, per_second), results.best(_cells(peers, rows, theirs, 32), per_second))

    return value


def latency(peers: tuple[str, ...], rows: int = 1) -> Value:
    """Our median time at one connection by the best of the peers'."""

    def value(results: Results) -> float | None:
        (own,) = _cells(("tabserve",), rows, "json", 1)
        return ratio(results.median(own, p50), results.best(_cells(peers, rows, "json", 1), p50, min))

    return value


def started(what: Callable[[Start], float]) -> Value:
    """Ours by stock KServe's."""

    def value(results: Results) -> float | None:
        ours, stock = (results.start(peer, "xgboost", what) for peer in ("tabserve", "kserve-custom"))
        return ratio(ours, stock)

    return value


TARGETS = (
    Target("1 row, 32 connections: throughput by the best stock server's", throughput(STOCK), 6, 8),
    Target("the same by FastAPI's", throughput(("fastapi",)), 3.5, 5),
    Target("the same by the no-op's", throughput(("noop-http",)), 0.3, 0.4),
    Target("1 row, 1 connection: p50 by the best server's", latency(SERVERS), 1 / 4, 1 / 5),
    Target("start to first answer by stock KServe's", started(lambda start: start.seconds), 0.5, 0.25),
    Target("resident memory by stock KServe's", started(lambda start: start.resident), 0.6, 0.4),
)
