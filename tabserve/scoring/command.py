"""Run `tabserve score` with its options, and print its progress and result."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from tabserve.bundle import BundleError
from tabserve.inference.errors import InferenceError
from tabserve.schema.timestamps import seconds
from tabserve.scoring.run import OnError, Options, run
from tabserve.scoring.scorer import Scorer
from tabserve.scoring.storage import RunError
from tabserve.scoring.where import ConditionError

REFUSED = (RunError, ConditionError, BundleError, InferenceError, OSError)
"""The errors that a user can fix."""
_STEPS = 1000


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
) -> None:
    """Score files, and say how many rows were decided, how fast, and how many were not. Raises one of REFUSED."""
    options = Options(
        keep=tuple(name for name in keep.split(",") if name),
        where=where,
        now=None if now is None else _instant(now),
        format=kind,
        on_error=on_error,
        most_errors=max_errors,
        together=together,
    )

    loaded = partial(Scorer, directory, threads=threads, together=together, digest=digest)

    def open_scorer(at: float) -> Scorer:
        return loaded(now=at, allow_joblib=allow_joblib, trusted=trusted)

    with _Progress() as progress:
        record = run(open_scorer, source, target, options, progress.report)
    decided = sum(one.decided for one in record.inputs)
    rate = f" in this run, {progress.rate:,.0f} rows per second" if progress.rows else " in this run"
    click.echo(f"{progress.rows:,} rows read{rate}")
    click.echo(f"{target}: {decided:,} decisions and {record.errors:,} errors of {len(record.inputs)} files")


def _instant(text: str) -> float:
    found = seconds(text)
    if found is None:
        raise RunError(f"--now: expected an ISO 8601 time, got {text!r}")
    return found


class _Progress:
    """A bar on the terminal with the share of bytes read, the rows per second, and the remaining time."""

    def __init__(self) -> None:
        self.rows, self._part, self._shown = 0, 0.0, 0
        self._started = time.monotonic()
        self._bar: Any = click.progressbar(
            length=_STEPS, label="scoring", file=sys.stderr, item_show_func=lambda _: f"{self.rate:,.0f} rows/s"
        )

    def __enter__(self) -> _Progress:
        self._bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(None, None, None)

    @property
    def rate(self) -> float:
        """Rows per second since the start."""
        return self.rows / max(time.monotonic() - self._started, 1e-9)

    def report(self, name: str, rows: int, part: float) -> None:
        """Add rows, and the share of all bytes that they were read from."""
        self.rows += rows
        self._part += part
        steps = min(_STEPS, round(self._part * _STEPS)) - self._shown
        self._shown += steps
        self._bar.update(steps, name)
