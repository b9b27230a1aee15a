"""Chains that answer in turns, and what they cost compared with each other.

Each turn starts every chain anew, since two processes of the same program differ by more than most options cost. A
chain is asked in a closed loop, and in an open one at half of what the first chain did at the start.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import click
import msgspec

from benchmarks import load, report, servers
from benchmarks.load import MOST_TRIES, Load, Measurement
from benchmarks.payloads import Payloads
from benchmarks.results import least_disturbed
from benchmarks.roster import Peer
from benchmarks.servers import Server

TURNS = 7
CONNECTIONS = 32
T_95 = {3: 4.303, 5: 2.776, 7: 2.447, 9: 2.306, 11: 2.228}
"""Student's quantiles for an interval of 95 % about the mean of so many values."""

F = TypeVar("F", bound=Callable[..., Any])


class Taken(msgspec.Struct, frozen=True):
    """A chain's two measurements in a turn."""

    closed: Measurement
    half: Measurement


Turn: TypeAlias = Mapping[str, Taken]


class Measure(NamedTuple):
    """What chains are compared by. form: how a chain's own figure is written, after it was multiplied by `unit`."""

    what: str
    of: Callable[[Taken], float]
    unit: float
    form: str
    at_most: bool = True

    def written(self, taken: Sequence[Taken]) -> str:
        """The median of what was measured."""
        return self.form.format(self.unit * statistics.median(map(self.of, taken)))


PER_SECOND = Measure("requests per second", lambda taken: taken.closed.per_second, 1, "{:,.0f}", at_most=False)
CPU = Measure("CPU of a request", lambda taken: taken.closed.server_seconds, 1e6, "{:.0f} µs")
P50 = Measure("p50 at half load", lambda taken: taken.half.p50, 1e3, "{:.3f} ms")
P99 = Measure("p99 at half load", lambda taken: taken.half.p99, 1e3, "{:.2f} ms")
FIGURES = (PER_SECOND, CPU, P50, P99)


class Compared(msgspec.Struct, frozen=True):
    """A ratio to another chain in each turn, and its bound if there is one; at_most: whether less is better."""

    what: str
    got: list[float]
    bound: float | None = None
    at_most: bool = False

    @property
    def interval(self) -> tuple[float, float]:
        """Where the ratio's geometric mean lies, with 95 %."""
        logs = [math.log(one) for one in self.got]
        half = T_95[len(logs)] * statistics.stdev(logs) / math.sqrt(len(logs))
        middle = statistics.mean(logs)
        return math.exp(middle - half), math.exp(middle + half)

    @property
    def verdict(self) -> str:
        """`missed` if the whole interval is beyond the bound; empty without a bound."""
        if self.bound is None:
            return ""
        low, high = self.interval
        return "missed" if (low > self.bound if self.at_most else high < self.bound) else "met"


class Question(NamedTuple):
    """What is asked of two chains: what the one did, divided by what the other did; with the words for both."""

    of: str
    to: str
    title: str
    than: str
    bounds: Mapping[Measure, float | None]


def options(results: Path, seconds: float) -> Callable[[F], F]:
    """The options of a benchmark in turns, whose parameters they are; with the defaults of two of them."""
    added = (
        click.option("--turns", "number", type=click.Choice([*T_95]), default=TURNS, show_default=True),
        click.option(
            "--seconds", type=click.FloatRange(1), default=seconds, show_default=True, help="Of a measurement."
        ),
        click.option("--rows", type=click.IntRange(1), default=1, show_default=True, help="Records in a request."),
        click.option("--output", type=click.Path(path_type=Path), default=results, help="Folder of the results."),
    )

    def add(function: F) -> F:
        for each in reversed(added):
            function = each(function)
        return function

    return add


class Chains:
    """Chains by name, of which one at a time runs and is asked; the first one sets the load.

    seconds: of each measurement. folder: for logs and answers.
    """

    def __init__(self, peers: Mapping[str, Peer], asked: Payloads, folder: Path, seconds: float) -> None:
        self._peers, self._asked, self._folder, self._seconds = peers, asked, folder, seconds

    def measure(self, turns: int) -> list[Turn]:
        """Verify each chain's answers, and measure it in so many turns; every other turn is in reverse.

        Raises PeerError.
        """
        for name in self._peers:
            with self._running(name) as server:
                load.collect(server, self._peers[name], self._asked, self._answers(name))
        rate = self._capacity() / 2
        orders = ([*self._peers][:: -1 if number % 2 else 1] for number in range(turns))
        return [{name: self._taken(number, name, rate) for name in order} for number, order in enumerate(orders)]

    def _capacity(self) -> float:
        name = next(iter(self._peers))
        with self._running(name) as server:
            return self._measured(name, server, Load(CONNECTIONS, self._seconds)).per_second

    def _taken(self, number: int, name: str, rate: float) -> Taken:
        with self._running(name) as server:
            taken = Taken(
                closed=self._measured(name, server, Load(CONNECTIONS, self._seconds)),
                half=self._measured(name, server, Load(CONNECTIONS, self._seconds, rate)),
            )
        told = ", ".join(f"{each.what} {each.written([taken])}" for each in FIGURES)
        click.echo(f"turn {number + 1}, {name}: {told} ({rate:,.0f} per second)")
        return taken

    def _measured(self, name: str, server: Server, wanted: Load) -> Measurement:
        """The least disturbed of a few measurements."""
        tries = (load.measure(server, self._asked, self._answers(name), wanted) for _ in range(MOST_TRIES))
        return least_disturbed(tries, lambda each: each)

    def _answers(self, name: str) -> Path:
        return self._folder / f"{name}-answers"

    @contextmanager
    def _running(self, name: str) -> Generator[Server]:
        peer = self._peers[name]
        with servers.running(peer, self._asked, self._folder / "none", self._folder / f"{name}.log") as server:
            yield server


def about(module: str, number: int, seconds: float, rows: int, libraries: Sequence[str]) -> dict[str, str]:
    """What was run, and where."""
    command = f"python -m {module} --turns {number} --seconds {seconds:g} --rows {rows}"
    return {**report.about(command, report.SERVED), "libraries": report.versions(libraries)}


def compared(turns: Sequence[Turn], question: Question) -> list[Compared]:
    """The ratios that a question asks for."""
    return [
        Compared(
            f"{question.title}: {measure.what} ÷ {question.than}",
            [measure.of(turn[question.of]) / measure.of(turn[question.to]) for turn in turns],
            bound,
            measure.at_most,
        )
        for measure, bound in question.bounds.items()
    ]


def write(title: str, about: Mapping[str, str], turns: Sequence[Turn], found: Sequence[Compared], output: Path) -> None:
    """Write summary.json and table.md, and print the table."""
    output.mkdir(parents=True, exist_ok=True)
    content = {"about": about, "medians": _medians(turns), "figures": found}
    (output / "summary.json").write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    page = _page(title, about, turns, found)
    (output / "table.md").write_text(page)
    click.echo(page)


def _medians(turns: Sequence[Turn]) -> dict[str, dict[str, float]]:
    """What each chain took itself, in requests and seconds."""
    return {
        name: {each.what: statistics.median(each.of(turn[name]) for turn in turns) for each in FIGURES}
        for name in turns[0]
    }


def _page(title: str, about: Mapping[str, str], turns: Sequence[Turn], found: Sequence[Compared]) -> str:
    head = ("what", "bound", "median", "95 % interval", "lowest to highest", "verdict")
    names = ("chain", *(each.what for each in FIGURES))
    own = ((name, *(each.written([turn[name] for turn in turns]) for each in FIGURES)) for name in turns[0])
    parts = (f"# {title}", report.facts(about), report.table(head, map(_row, found)), report.table(names, own))
    return "\n\n".join(parts) + "\n"


def _row(figure: Compared) -> Sequence[str]:
    low, high = figure.interval
    return (
        figure.what,
        "" if figure.bound is None else f"{'≤' if figure.at_most else '≥'} {figure.bound:g}",
        f"{statistics.median(figure.got):.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{min(figure.got):.3f} to {max(figure.got):.3f}",
        figure.verdict,
    )
