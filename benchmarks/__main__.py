"""`python -m benchmarks`: compare tabserve with other servers, and write the table and the plots."""

from __future__ import annotations

import signal
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import click

from benchmarks import bare, environments, models, plan, plots, report
from benchmarks.measuring import Session
from benchmarks.results import Results

RESULTS = Path(__file__).parent / "results"
OURS = ("tabserve", "httptools", "uvloop", "grpcio", "onnxruntime", "xgboost-cpu", "scikit-learn")


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(list(plan.PLANS)))
@click.option("--rounds", type=click.IntRange(1), help="Fresh starts of each server, instead of the plan's.")
@click.option("--seconds", type=click.FloatRange(1), help="Seconds of each measurement, instead of the plan's.")
@click.option("--model", type=click.Choice(list(models.MODELS)), help="Measure only this model.")
@click.option("--output", type=click.Path(path_type=Path), default=None, help="Folder of the results.")
def main(name: str, rounds: int | None, seconds: float | None, model: str | None, output: Path | None) -> None:
    """Carry out a plan; results so far are written after each server."""
    chosen = plan.PLANS[name]
    chosen = replace(chosen, rounds=rounds or chosen.rounds, seconds=seconds or chosen.seconds)
    chosen = plan.of_model(chosen, model) if model else chosen
    results = Results(_about(chosen, model))
    output = output or RESULTS / (model or ("" if name == "full" else name))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that the servers end as well
    environments.generator()
    with tempfile.TemporaryDirectory(prefix="tabserve-bench-") as folder:
        for each in chosen.bare:
            results.bare += bare.measure(each)
        for _ in Session(chosen, results, Path(folder), click.echo).run():
            report.write(results, output)
            plots.write(results, output)
    click.echo(report.page(results))


def _about(chosen: plan.Plan, model: str | None) -> dict[str, str]:
    only = f" --model {model}" if model else ""
    command = f"python -m benchmarks {chosen.name} --rounds {chosen.rounds} --seconds {chosen.seconds:g}{only}"
    return {
        **report.about(command, report.SERVED),
        "tabserve's": ", ".join(f"{each} {version(each)}" for each in OURS),
        "peers'": "pinned in benchmarks/peers/*.lock",
    }


if __name__ == "__main__":
    main()
