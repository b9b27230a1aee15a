"""Run `tabserve score` with its options, and print its progress and result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click

from tabserve.bundle import BundleError
from tabserve.inference.errors import InferenceError
from tabserve.progress import Progress
from tabserve.schema.timestamps import seconds
from tabserve.scoring.run import Log, OnError, Options, run
from tabserve.scoring.scorer import Scorer
from tabserve.scoring.storage import RunError
from tabserve.scoring.where import ConditionError

REFUSED = (RunError, ConditionError, BundleError, InferenceError, OSError)
"""The errors that a user can fix."""


def score(
    directory: Path,
    source: str,
    target: str,
    *,
    kind: str | None,
    keep: str,
    where: str | None,
    now: str | None,
    on_error: OnError,
    max_errors: int | None,
    threads: int,
    together: bool,
    digest: str | None,
    allow_joblib: bool,
    trusted: Sequence[str],
    signed_by: str | None,
    open_log: Callable[[Scorer], Log] | None,
) -> None:
    """Score files, and say how many rows were decided, how fast, and how many were not. Raises one of REFUSED.

    open_log: makes the log of the decisions.
    """
    options = Options(
        keep=tuple(name for name in keep.split(",") if name),
        where=where,
        now=None if now is None else instant(now),
        format=kind,
        on_error=on_error,
        most_errors=max_errors,
        together=together,
    )

    loaded = partial(Scorer, directory, threads=threads, together=together, digest=digest, signed_by=signed_by)

    def open_scorer(at: float) -> Scorer:
        return loaded(now=at, allow_joblib=allow_joblib, trusted=trusted)

    share = 0.0

    with Progress("rows") as progress:

        def report(name: str, rows: int, part: float) -> None:
            nonlocal share
            share += part
            progress.report(rows, share)

        record = run(open_scorer, source, target, options, report, open_log)
    decided = sum(one.decided for one in record.inputs)
    rate = f" in this run, {progress.rate:,.0f} rows per second" if progress.count else " in this run"
    click.echo(f"{progress.count:,} rows read{rate}")
    click.echo(f"{target}: {decided:,} decisions and {record.errors:,} errors of {len(record.inputs)} files")


def instant(text: str) -> float:
    """The option `--now` in seconds since 1970. Raises RunError."""
    found = seconds(text)
    if found is None:
        raise RunError(f"--now: expected an ISO 8601 time, got {text!r}")
    return found
