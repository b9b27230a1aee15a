"""The commands of `tabserve log`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tabserve.bundle import BundleError
from tabserve.inference.errors import InferenceError
from tabserve.options import ALLOW_JOBLIB, DIRECTORY, THREADS, TRUSTED, trusted_names

if TYPE_CHECKING:
    from tabserve.decision_log.replayer import Replayer

_UNUSABLE = 2
_BUNDLES = click.option(
    "--bundle",
    "bundles",
    required=True,
    multiple=True,
    type=DIRECTORY,
    help="A bundle that made decisions of the log; may be repeated.",
)


@click.group()
def log() -> None:
    """Replay logged decisions, explain one, and remove those that are old or must be forgotten."""


@log.command()
@click.argument("source", metavar="LOG")
@_BUNDLES
@click.option("--id", "identity", help="Only the decisions about the record with this id.")
@click.option("--differences", "most", type=click.IntRange(0), default=20, show_default=True, help="How many to tell.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@THREADS
@ALLOW_JOBLIB
@TRUSTED
def replay(
    source: str, bundles: Sequence[Path], identity: str | None, most: int, as_json: bool, **options: Any
) -> None:
    """Make every decision of LOG again, and compare it bit by bit with what was logged.

    LOG is a folder, a file, or a URI such as s3://bucket/log. Exit status: 0 if every decision was made again and is
    equal; 1 if one differs. It is 2 if none differs but one cannot be replayed, or if the log or a bundle is unusable.
    """
    from tabserve.decision_log import replay as replaying
    from tabserve.decision_log import telling

    with _refusing():
        found = replaying.replay(source, _replayers(bundles, **options), identity=identity, most=most)
    click.echo(telling.json(found) if as_json else telling.replay(found))
    sys.exit({"equal": 0, "differs": 1, "not replayable": _UNUSABLE}[found.result])


@log.command()
@click.argument("source", metavar="LOG")
@click.option("--id", "identity", required=True, help="Of the record; the last decision about it is explained.")
@_BUNDLES
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write one HTML page instead.")
@THREADS
@ALLOW_JOBLIB
@TRUSTED
def explain(source: str, identity: str, bundles: Sequence[Path], out: Path | None, **options: Any) -> None:
    """Explain one decision of LOG: the record, the score, what added to it, and whether it is decided so again.

    Exit status: 0, also if the decision is not equal; 2 if it is not there, or none of the bundles made it.
    """
    from tabserve.decision_log import explain as explaining
    from tabserve.decision_log import telling

    with _refusing():
        found = explaining.explain(source, identity, _replayers(bundles, **options), datetime.now(UTC))
    if out is None:
        click.echo(telling.explanation(found))
        return
    from tabserve.decision_log.page import page

    out.write_text(page(found), "utf-8")
    click.echo(f"{out}: {found.id}, {found.result}")


def _days(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    if value is not None and not (value.endswith("d") and value[:-1].isdecimal()):
        raise click.BadParameter(f"expected a number of days such as 180d, got {value!r}")
    return None if value is None else int(value[:-1])


@log.command()
@click.argument("source", metavar="LOG")
@click.option("--older-than", "days", metavar="DAYS", callback=_days, help="Remove the days before this many: 180d.")
@click.option("--erase", "ids", multiple=True, metavar="ID", help="Remove the records with this id; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
def prune(source: str, days: int | None, ids: Sequence[str], dry_run: bool) -> None:
    """Remove old days, single records, and temporary files that nobody finishes.

    LOG is a folder, or a URI such as s3://bucket/log. Files are replaced at once: if the command is killed, each is the
    old one or the new one. Exit status: 0, or 2 if the log is unusable.
    """
    from tabserve.decision_log import prune as pruning

    with _refusing():
        pruning.prune(source, days, ids, click.echo, dry=dry_run)


def _replayers(bundles: Sequence[Path], *, threads: int, allow_joblib: bool, trusted: Sequence[str]) -> list[Replayer]:
    from tabserve.decision_log.replayer import Replayer

    names = trusted_names(trusted)
    return [Replayer(one, threads=threads, allow_joblib=allow_joblib, trusted=names) for one in bundles]


@contextmanager
def _refusing() -> Iterator[None]:
    """End with status 2 if the log or a bundle cannot be used."""
    from tabserve.scoring.storage import RunError

    try:
        yield
    except (RunError, BundleError, InferenceError, OSError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(_UNUSABLE)
