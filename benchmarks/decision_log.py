"""`python -m benchmarks.decision_log`: what a decision log costs a transformer, into results/decision_log.

Three chains of the model payments answer in turns: without a log, with one in a folder, and with one in a store that
never answers. Seven turns in alternation, each a closed loop, and an open one at half of what the chain without a log
just did.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import click
import msgspec

from benchmarks import environments, load, models, report, roster, servers
from benchmarks.load import MOST_TRIES, Load, Measurement
from benchmarks.payloads import Payloads, payloads
from benchmarks.results import least_disturbed
from benchmarks.roster import Peer
from benchmarks.servers import Server
from benchmarks.silent import silent

TURNS = 7
CONNECTIONS = 32
RESULTS = Path(__file__).parent / "results" / "decision_log"
LIBRARIES = ("tabserve", "pyarrow", "numpy", "uvloop")
T_95 = {3: 4.303, 5: 2.776, 7: 2.447, 9: 2.306, 11: 2.228}
"""Student's quantiles for an interval of 95 % about the mean of so many values."""
FILE_SECONDS = 2
"""Files end several times in a measurement, so that it pays for them."""


class Compared(msgspec.Struct, frozen=True):
    """A ratio to the chain without a log in each turn, and its bound; at_most: whether less is better."""

    what: str
    bound: float
    got: list[float]
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
        """`missed` if the whole interval is beyond the bound."""
        low, high = self.interval
        return "missed" if (low > self.bound if self.at_most else high < self.bound) else "met"


@click.command(help=__doc__)
@click.option("--turns", type=click.Choice([str(each) for each in T_95]), default=str(TURNS), show_default=True)
@click.option("--seconds", type=click.FloatRange(1), default=10.0, show_default=True, help="Of each measurement.")
@click.option("--rows", type=click.IntRange(1), default=1, show_default=True, help="Records in a request.")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the results.")
def main(turns: str, seconds: float, rows: int, output: Path) -> None:
    """Measure, write table.md and summary.json, and print the table."""
    environments.generator()
    asked = payloads(models.trained("payments"), rows, "records")
    with tempfile.TemporaryDirectory(prefix="tabserve-bench-") as folder, ExitStack() as stack:
        chains = _Chains(asked, Path(folder), stack)
        taken = [chains.turn(number, seconds) for number in range(int(turns))]
    found = _figures(taken)
    about = _about(turns, seconds, rows)
    output.mkdir(parents=True, exist_ok=True)
    content = {"about": about, "figures": found}
    (output / "summary.json").write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    (output / "table.md").write_text(_page(about, found))
    click.echo(_page(about, found))


class _Taken(msgspec.Struct, frozen=True):
    """A chain's two measurements in a turn."""

    closed: Measurement
    half: Measurement


class _Chains:
    """The three chains, all running; only one is asked at a time."""

    def __init__(self, asked: Payloads, folder: Path, stack: ExitStack) -> None:
        self._asked, self._folder = asked, folder
        port = stack.enter_context(silent())
        hung = f"s3://lake/log?scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"
        peers = {
            "none": roster.DECISIONS,
            "folder": _logging("folder", str(folder / "decisions")),
            "hung": _logging("hung", hung),
        }
        self._servers = {name: stack.enter_context(self._running(peer)) for name, peer in peers.items()}
        for name, peer in peers.items():
            load.collect(self._servers[name], peer, asked, self._answers(name))

    def turn(self, number: int, seconds: float) -> dict[str, _Taken]:
        """Measure each chain; every other turn is in reverse."""
        order = list(self._servers)[:: -1 if number % 2 else 1]
        closed = {name: self._measured(name, Load(CONNECTIONS, seconds)) for name in order}
        rate = closed["none"].per_second / 2
        half = {name: self._measured(name, Load(CONNECTIONS, seconds, rate)) for name in order}
        for name in order:
            click.echo(
                f"turn {number + 1}, {name}: {closed[name].per_second:,.0f} per second, "
                f"p99 {half[name].p99 * 1e3:.2f} ms at {rate:,.0f} per second"
            )
        return {name: _Taken(closed[name], half[name]) for name in order}

    def _measured(self, name: str, wanted: Load) -> Measurement:
        """The least disturbed of a few measurements."""
        tries = (load.measure(self._servers[name], self._asked, self._answers(name), wanted) for _ in range(MOST_TRIES))
        return least_disturbed(tries, lambda each: each)

    def _answers(self, name: str) -> Path:
        return self._folder / f"{name}-answers"

    @contextmanager
    def _running(self, peer: Peer) -> Generator[Server]:
        with servers.running(peer, self._asked, self._folder / "none", self._folder / f"{peer.name}.log") as server:
            yield server


def _logging(name: str, to: str) -> Peer:
    """The chain with a decision log."""
    transformer, predictor = roster.DECISIONS.commands
    options = (f"--decision_log={to}", f"--decision_log_file_seconds={FILE_SECONDS}")
    variables = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_EC2_METADATA_DISABLED": "true"}
    return replace(
        roster.DECISIONS,
        name=f"tabserve-log-{name}",
        commands=((*transformer, *options), predictor),
        variables=variables,
    )


def _figures(taken: Sequence[dict[str, _Taken]]) -> list[Compared]:
    def ratios(name: str, what: Callable[[_Taken], float]) -> list[float]:
        return [what(turn[name]) / what(turn["none"]) for turn in taken]

    titles = {"folder": "log in a folder", "hung": "log in a store that never answers"}
    found = []
    for name, title in titles.items():
        found += [
            Compared(f"{title}: requests per second ÷ without", 0.97, ratios(name, lambda t: t.closed.per_second)),
            Compared(f"{title}: p99 at half load ÷ without", 1.05, ratios(name, lambda t: t.half.p99), at_most=True),
            Compared(
                f"{title}: CPU of a request ÷ without",
                1.03,
                ratios(name, lambda t: t.closed.server_seconds),
                at_most=True,
            ),
        ]
    return found


def _about(turns: str, seconds: float, rows: int) -> dict[str, str]:
    command = f"python -m benchmarks.decision_log --turns {turns} --seconds {seconds:g} --rows {rows}"
    return {**report.about(command, report.SERVED), "libraries": report.versions(LIBRARIES)}


def _page(about: dict[str, str], found: Sequence[Compared]) -> str:
    head = ("what", "bound", "median", "95 % interval", "lowest to highest", "verdict")
    return f"# What a decision log costs\n\n{report.facts(about)}\n\n{report.table(head, map(_row, found))}\n"


def _row(figure: Compared) -> Sequence[str]:
    low, high = figure.interval
    return (
        figure.what,
        f"{'≤' if figure.at_most else '≥'} {figure.bound:g}",
        f"{statistics.median(figure.got):.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{min(figure.got):.3f} to {max(figure.got):.3f}",
        figure.verdict,
    )


if __name__ == "__main__":
    main()
