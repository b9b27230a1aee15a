"""The targets: ratios within one run, each with a target and a stretch goal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import mean, median
from typing import NamedTuple

from benchmarks.load import Measurement
from benchmarks.results import (
    AGED,
    FRESH,
    HALF,
    OVERLOAD,
    QUARTER,
    Cell,
    Results,
    Sample,
    Start,
    cpu,
    p50,
    p99,
    per_second,
    ratio,
)

Value = Callable[[Results], float | None]

STOCK = ("kserve-custom", "kserve-quiet", "kserve-xgbserver", "mlserver", "mlserver-serial", "mlserver-batching")
CHAINS = ("kserve-chain-rest", "kserve-chain-grpc")
_BINARY = [Cell("tabserve", "xgboost", 64, "binary", connections) for connections in (1, 32)]
_MOST = {
    "logistic": {1: 1.3, 16: 1.3},
    "xgboost": {1: 5.2, 16: 6.1},
    "payments": {1: 1.43, 16: 1.39},
}
"""How much longer a decision with reasons may take, by connections.

For trees, it is half of the additional CPU time with XGBoost 3.2 on 2026-11-29 (`python -m benchmarks reasons`).
"""
SETTLED_SECONDS = 10
"""Memory is compared with its value this long after the overload began."""


class Goal(NamedTuple):
    """A figure and where it should be: at least `target` and `stretch`, or at most if `at_most`.

    by_cpu: the ratio of the servers' CPU time per request, which other processes on the machine disturb less.
    """

    title: str
    value: Value
    target: float
    stretch: float | None = None
    by_cpu: Value | None = None
    at_most: bool = False

    def verdict(self, got: float | None) -> str:
        """`stretch`, `met`, `missed` or `not measured`."""
        if got is None:
            return "not measured"
        for bound, word in ((self.stretch, "stretch"), (self.target, "met")):
            if bound is not None and (got <= bound if self.at_most else got >= bound):
                return word
        return "missed"


class Compared(NamedTuple):
    """Cells that are compared: ours, and the peers', of which the best counts.

    Each figure is the median over the rounds of what was measured one right after the other. A cell that is measured
    again in another group, minutes later, does not count.
    """

    ours: Cell
    theirs: Sequence[Cell]

    def throughput(self, results: Results) -> float | None:
        """Our throughput divided by the peers' best."""
        return self._compared(
            results, lambda each: ratio(each.median(self.ours, per_second), each.best(self.theirs, per_second))
        )

    def by_cpu(self, results: Results) -> float | None:
        """The peers' best CPU time per request divided by ours."""
        return self._compared(
            results, lambda each: ratio(each.best(self.theirs, cpu, min), each.median(self.ours, cpu))
        )

    def more_cpu(self, results: Results) -> float | None:
        """Our CPU time per request divided by the peers' best."""
        return ratio(1.0, self.by_cpu(results))

    def latency(self, results: Results) -> float | None:
        """Our median latency divided by the peers' best."""
        return self._compared(
            results, lambda each: ratio(each.median(self.ours, p50), each.best(self.theirs, p50, min))
        )

    def _compared(self, results: Results, value: Value) -> float | None:
        values = [got for each in results.comparisons() if (got := value(each)) is not None]
        return median(values) if values else None


def compared(
    peers: Sequence[str],
    *,
    connections: int = 32,
    rows: int = 1,
    model: str = "xgboost",
    encoding: str = "json",
    theirs: Sequence[str] = (),
    ours: str = "tabserve",
) -> Compared:
    """Cells that differ only in the peer; `theirs` are the peers' encodings if they differ from ours."""
    own = Cell(ours, model, rows, encoding, connections)
    others = [Cell(peer, model, rows, each, connections) for peer in peers for each in theirs or (encoding,)]
    return Compared(own, others)


def throughput(title: str, cells: Compared, target: float, stretch: float | None = None) -> Goal:
    """Throughput over several connections, at least `target` times the peers'."""
    return Goal(title, cells.throughput, target, stretch, cells.by_cpu)


def latency(title: str, cells: Compared, target: float, stretch: float) -> Goal:
    """Median latency at one connection, at most `target` times the peers'."""
    return Goal(title, cells.latency, target, stretch, at_most=True)


def started(title: str, what: Callable[[Start], float], target: float) -> Goal:
    """A figure of a start, at most `target` times stock KServe's."""

    def value(results: Results) -> float | None:
        ours, stock = (results.start(peer, "xgboost", what) for peer in ("tabserve", "kserve-custom"))
        return ratio(ours, stock)

    return Goal(title, value, target, at_most=True)


def of_bare_engine(results: Results) -> float | None:
    """Requests of 64 rows per second, divided by the calls per second of the fastest bare engine."""
    return ratio(results.best(_BINARY, per_second), ratio(1.0, _alone(results)))


def of_bare_engine_by_cpu(results: Results) -> float | None:
    """The CPU time of the fastest bare engine's call, divided by that of a request."""
    return ratio(_alone(results), results.best(_BINARY, cpu, min))


def _alone(results: Results) -> float | None:
    return min((bare.seconds for bare in results.bare if (bare.model, bare.rows) == ("xgboost", 64)), default=None)


def differs(results: Results) -> float | None:
    """The largest difference between a probability and scikit-learn's."""
    found = [start.difference for start in results.starts if start.peer == "tabserve" and start.model != "xgboost"]
    return max(found, default=None)


def overloaded(rows: int, what: Callable[[Sample], float]) -> Value:
    """The median of a figure under overload, with requests of this many rows."""

    def value(results: Results) -> float | None:
        samples = [each for each in results.samples if each.cell.load == OVERLOAD and each.cell.rows == rows]
        return median(map(what, samples)) if samples else None

    return value


def goodput(rows: int) -> Value:
    """Right answers per second under overload, divided by the mean of the closed loops just before and after it."""

    def value(results: Results) -> float | None:
        shares = []
        for at, sample in enumerate(results.samples):
            if sample.cell.load == OVERLOAD and sample.cell.rows == rows:
                before, after = results.samples[at - 1], results.samples[at + 1 : at + 2]
                closed = [before, *(each for each in after if each.cell == before.cell)]
                shares.append(sample.measured.per_second / mean(each.measured.per_second for each in closed))
        return median(shares) if shares else None

    return value


def refusal(sample: Sample) -> float:
    """The 99th percentile of the milliseconds to a refusal, 0 if none was refused."""
    return sample.measured.refused_quantiles[198] * 1e3 if sample.measured.refused else 0.0


def growth(sample: Sample) -> float:
    """The most memory, divided by the memory shortly after the overload began."""
    return max(sample.resident) / sample.resident[SETTLED_SECONDS]


def grown(what: Callable[[Sample], float]) -> Value:
    """The median of a soak's last tenth, divided by that of its first."""

    def value(results: Results) -> float | None:
        values = [what(sample) for sample in _soaked(results, "tabserve")]
        tenth = len(values) // 10
        return ratio(median(values[-tenth:]), median(values[:tenth])) if tenth else None

    return value


def aged(what: Callable[[Measurement], float]) -> Value:
    """The median over minutes, after a soak, of a figure divided by a fresh start's at the same time."""

    def value(results: Results) -> float | None:
        old, new = (_soaked(results, "tabserve" + age) for age in (AGED, FRESH))
        ratios = [what(one.measured) / what(other.measured) for one, other in zip(old, new, strict=True)]
        return median(ratios) if ratios else None

    return value


def _soaked(results: Results, name: str) -> list[Sample]:
    return [each for each in results.samples if each.cell.load in (HALF, QUARTER) and each.cell.peer == name]


def _pipelines() -> list[Goal]:
    targets = []
    for model in ("logistic", "forest", "histogram"):
        many = compared(("kserve-sklearnserver",), model=model, encoding="columns")
        one = compared(("kserve-sklearnserver",), model=model, encoding="columns", connections=1)
        targets += [
            throughput(f"{model} pipeline, 1 row: throughput ÷ KServe sklearnserver's", many, 15, 30),
            latency(f"{model} pipeline: p50", one, 1 / 10, 1 / 15),
        ]
    return targets


def _overloads() -> list[Goal]:
    targets = []
    for rows, many in ((1, "1 row"), (64, "64 rows")):
        targets += [
            Goal(f"overload at three times capacity, {many}: goodput ÷ capacity", goodput(rows), 0.9),
            Goal(f"overload, {many}: p99 of refusals, ms", overloaded(rows, refusal), 50, at_most=True),
            Goal(f"overload, {many}: memory ÷ that after 10 s", overloaded(rows, growth), 1.05, at_most=True),
        ]
    return targets


def _many(connections: int) -> str:
    return "1 connection" if connections == 1 else f"{connections} connections"


def _explained(model: str, connections: int, peer: str = "tabserve-reasons") -> Compared:
    """Decisions with reasons, compared with decisions without."""
    cells = [Cell(each, model, 1, "records", connections) for each in (peer, "tabserve-decisions")]
    return Compared(cells[0], cells[1:])


def _reasons() -> list[Goal]:
    """The cost of reasons, compared with the same chain and model without them."""
    targets = []
    for connections in (1, 16):
        for model, most in _MOST.items():
            title = f"{model}, decisions with reasons, {_many(connections)}: p50 ÷ that without"
            cells = _explained(model, connections)
            targets.append(Goal(title, cells.latency, most[connections], by_cpu=cells.more_cpu, at_most=True))
    some = _explained("payments", 16, "tabserve-some-reasons")
    title = "payments, reasons for block and review, 16 connections: throughput ÷ that without"
    return [*targets, Goal(title, some.throughput, 0.8, by_cpu=some.by_cpu)]


_ANY = ("json", "binary")
_chained = partial(compared, CHAINS, ours="tabserve-chain", encoding="json-predict_proba")
_HOPS = Compared(Cell("tabserve-decisions", "xgboost", 1, "records", 1), [Cell("tabserve", "xgboost", 1, "json", 1)])

TARGETS = (
    throughput("1 row, 32 connections: throughput ÷ the best stock server's", compared(STOCK), 6, 8),
    throughput("the same ÷ FastAPI's", compared(("fastapi",)), 3.5, 5),
    throughput("the same ÷ the no-op's", compared(("noop-http",)), 0.3, 0.4),
    latency("1 row, 1 connection: p50 ÷ the best stock server's", compared(STOCK, connections=1), 1 / 4, 1 / 5),
    throughput("64 rows, JSON: throughput ÷ the best stock server's", compared(STOCK, rows=64), 2, 3),
    throughput(
        "64 rows, binary: throughput ÷ the best stock server's",
        compared(STOCK, rows=64, encoding="binary", theirs=_ANY),
        3,
        4,
    ),
    Goal("64 rows, binary: throughput ÷ the bare engine's", of_bare_engine, 0.6, 0.8, of_bare_engine_by_cpu),
    *_pipelines(),
    Goal("pipelines: largest difference of a probability", differs, 1e-6, at_most=True),
    throughput("chain, 1 row, 16 connections: throughput ÷ the best KServe chain's", _chained(connections=16), 6, 10),
    latency("chain: p50 at 1 connection", _chained(connections=1), 1 / 4, 1 / 6),
    latency("chain with records and decisions: p50 ÷ our single hop's", _HOPS, 3, 2),
    throughput("gRPC, 1 row: throughput ÷ the no-op's", compared(("noop-grpc",), encoding="grpc"), 0.6, 0.8),
    throughput("gRPC, 1 row: throughput ÷ stock KServe's", compared(("kserve-custom",), encoding="grpc"), 2.5, 3),
    *_reasons(),
    *_overloads(),
    started("time to the first answer ÷ stock KServe's", lambda start: start.seconds, 0.5),
    started("resident memory ÷ stock KServe's", lambda start: start.resident, 0.6),
    Goal("soak: memory at the end ÷ that at the start", grown(lambda each: median(each.resident)), 1.02, at_most=True),
    Goal("soak: open descriptors", grown(lambda each: each.descriptors), 1.0, at_most=True),
    Goal("soak: p99 after it ÷ a fresh start's at the same time", aged(p99), 1.1, by_cpu=aged(cpu), at_most=True),
)
