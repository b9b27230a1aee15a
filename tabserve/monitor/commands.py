"""The commands of `tabserve monitor`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from tabserve.options import DIRECTORY, VERIFY


class _WithDefault(click.Group):
    """A group whose first argument, if it is no command, belongs to `run`."""

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        """The command and its arguments."""
        return super().resolve_command(context, args if args[0] in self.commands else ["run", *args])


def _judging(command: Any) -> Any:
    for option in (
        click.option(
            "--alpha", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.05, show_default=True
        ),
        click.option("--segment", multiple=True, metavar="FIELD", help="Also judge answers by this field's groups."),
        click.option("--tolerance", multiple=True, metavar="NAME=NUMBER", help="Of feature, score or error."),
    ):
        command = option(command)
    return command


@click.group(cls=_WithDefault, context_settings={"ignore_unknown_options": True})
def monitor() -> None:
    """Compare a decision log with its bundle, and say when to retrain.

    tabserve monitor LOG --bundle DIR; `tabserve monitor run --help` lists the options.
    """


@monitor.command()
@click.argument("log")
@click.option("--bundle", "directory", type=DIRECTORY, required=True, help="What was serving.")
@click.option("--labels", metavar="PLACE", help="What records turned out to be: Parquet or CSV with id, label, time.")
@click.option("--digest", help="Refuse any bundle but this one, sha256:…")
@VERIFY
@click.option("--out", metavar="FOLDER", help="For report.json, and what the next run goes on with.")
@click.option("--notify", metavar="URL", help="Post a CloudEvent tabserve.retrain.v1 for each alarm, once.")
@click.option("--push", metavar="URL", help="Put metrics there, as a Prometheus Pushgateway takes them.")
@click.option("--json", "as_json", is_flag=True, help="Print report.json.")
@click.option("--exit-zero", is_flag=True, help="End with 0 for an alarm, too.")
@_judging
def run(log: str, directory: Path, **options: Any) -> None:
    """Compare a decision log with its bundle.

    LOG is the folder that decisions are logged to, here or at s3://, gs:// and abfs://. Exit status: 0 if nothing has
    changed beyond chance and tolerance, 3 for an alarm, 2 if log, bundle or labels cannot be used.
    """
    from tabserve.monitor import command

    try:
        status = command.monitor(log, directory, **options)
    except command.REFUSED as error:
        click.echo(f"Error: {error}", err=True)
        status = command.UNUSABLE
    sys.exit(status)


@monitor.command()
@click.option("--bundle", "directory", type=DIRECTORY, required=True, help="What will be serving.")
@click.option("--rows-per-day", type=click.IntRange(1), required=True, help="Decisions.")
@click.option("--labelled", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="Part with a label.")
@click.option("--years", type=click.IntRange(1), default=200, show_default=True, help="To simulate.")
@click.option("--seed", type=int, default=0, show_default=True)
@_judging
def simulate(directory: Path, **options: Any) -> None:
    """Show false alarms in a year, and days to find a change, with this bundle and these options."""
    from tabserve.monitor import command

    try:
        click.echo(command.simulated(directory, **options))
    except command.REFUSED as error:
        raise click.ClickException(str(error)) from None
