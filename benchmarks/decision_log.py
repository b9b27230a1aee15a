"""`python -m benchmarks.decision_log`: what a decision log costs a transformer, into results/decision_log.

Three chains of the model payments answer in turns: without a log, with one in a folder, and with one in a store that
never answers. Seven turns in alternation; each starts every chain anew, since two processes of the same program differ
by more than a log costs. A chain is asked in a closed loop, and in an open one at half of what a chain without a log
did at the start.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
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
FILES = 2
"""How many files end in a measurement, so that it pays for them; by default, one ends in a minute."""


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
    with tempfile.TemporaryDirectory(prefix="tabserve-bench-") as folder, silent() as port:
        chains = _Chains(asked, Path(folder), port, seconds)
        rate = chains.capacity() / 2
        taken = [chains.turn(number, rate) for number in range(int(turns))]
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
    """The three chains; one at a time runs and is asked. seconds: of each measurement."""

    def __init__(self, asked: Payloads, folder: Path, silent_port: int, seconds: float) -> None:
        self._asked, self._folder, self._seconds = asked, folder, seconds
        hung = f"s3://lake/log?scheme=http&endpoint_override=127.0.0.1:{silent_port}&region=us-east-1"
        self._peers = {
            "none": roster.DECISIONS,
            "folder": _logging("folder", str(folder / "decisions"), seconds / FILES),
            "hung": _logging("hung", hung, seconds / FILES),
        }

    def capacity(self) -> float:
        """Requests a second of a chain without a log."""
        with self._running("none") as server:
            return self._measured("none", server, Load(CONNECTIONS, self._seconds)).per_second

    def turn(self, number: int, rate: float) -> dict[str, _Taken]:
        """Measure each chain; every other turn is in reverse."""
        order = list(self._peers)[:: -1 if number % 2 else 1]
        return {name: self._taken(number, name, rate) for name in order}

    def _taken(self, number: int, name: str, rate: float) -> _Taken:
        with self._running(name) as server:
            taken = _Taken(
                closed=self._measured(name, server, Load(CONNECTIONS, self._seconds)),
                half=self._measured(name, server, Load(CONNECTIONS, self._seconds, rate)),
            )
        click.echo(
            f"turn {number + 1}, {name}: {taken.closed.per_second:,.0f} per second, "
            f"{taken.closed.server_seconds * 1e6:.0f} us of CPU, p99 {taken.half.p99 * 1e3:.2f} ms at {rate:,.0f}"
        )
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
        with servers.running(peer, self._asked, self._folder / "none", self._folder / f"{peer.name}.log") as server:
            load.collect(server, peer, self._asked, self._answers(name))
            yield server


def _logging(name: str, to: str, file_seconds: float) -> Peer:
    """The chain with a decision log."""
    transformer, predictor = roster.DECISIONS.commands
    options = (f"--decision_log={to}", f"--decision_log_file_seconds={file_seconds}")
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
