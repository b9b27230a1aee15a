"""`python -m benchmarks.decision_log`: what a decision log costs a transformer, into results/decision_log.

Three chains of the model payments answer in turns: without a log, with one in a folder, and with one in a store that
never answers.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import click

from benchmarks import environments, models, roster, turns
from benchmarks.payloads import payloads
from benchmarks.roster import Peer
from benchmarks.silent import silent
from benchmarks.turns import Chains, Question

RESULTS = Path(__file__).parent / "results" / "decision_log"
LIBRARIES = ("tabserve", "pyarrow", "numpy", "uvloop")
FILES = 2
"""How many files end in a measurement, so that it pays for them; by default, one ends in a minute."""
BOUNDS = {turns.PER_SECOND: 0.97, turns.P99: 1.05, turns.CPU: 1.03}
QUESTIONS = (
    Question("folder", "none", "log in a folder", "without", BOUNDS),
    Question("hung", "none", "log in a store that never answers", "without", BOUNDS),
)


@click.command(help=__doc__)
@turns.options(RESULTS, seconds=10)
def main(number: int, seconds: float, rows: int, output: Path) -> None:
    """Measure, write table.md and summary.json, and print the table."""
    environments.generator()
    asked = payloads(models.trained("payments"), rows, "records")
    with tempfile.TemporaryDirectory(prefix="tabserve-bench-") as folder, silent() as port:
        hung = f"s3://lake/log?scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"
        peers = {
            "none": roster.DECISIONS,
            "folder": _logging("folder", f"{folder}/decisions", seconds / FILES),
            "hung": _logging("hung", hung, seconds / FILES),
        }
        taken = Chains(peers, asked, Path(folder), seconds).measure(number)
    found = [figure for question in QUESTIONS for figure in turns.compared(taken, question)]
    about = turns.about("benchmarks.decision_log", number, seconds, rows, LIBRARIES)
    turns.write("What a decision log costs", about, taken, found, output)


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


if __name__ == "__main__":
    main()
