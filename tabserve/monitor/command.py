"""Run `tabserve monitor` and `tabserve monitor simulate` with their options, and print what they find."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import click
import msgspec

from tabserve import bundle as bundles
from tabserve.bundle import BundleError
from tabserve.inference.errors import InferenceError
from tabserve.monitor import events, prometheus, reading, run, simulate, text
from tabserve.monitor.run import Subject
from tabserve.monitor.verdict import Tolerances
from tabserve.progress import Progress
from tabserve.scoring.storage import Place, RunError

REFUSED = (RunError, BundleError, InferenceError, OSError)
"""The errors that a user can fix."""
FINE, UNUSABLE, ALARM = 0, 2, 3


def monitor(
    log: str,
    directory: Path,
    *,
    labels: str | None,
    digest: str | None,
    signed_by: str | None,
    out: str | None,
    notify: str | None,
    push: str | None,
    as_json: bool,
    exit_zero: bool,
    alpha: float,
    tolerance: Sequence[str],
    segment: Sequence[str],
) -> int:
    """Compare a log with its bundle, print the report, and say if anything has changed. Raises one of REFUSED."""
    if notify is not None and out is None:
        raise RunError("--notify: needs --out, which remembers what was told. Give a folder.")
    for option, url in (("--notify", notify), ("--push", push)):
        if url is not None and not url.startswith(("http://", "https://")):
            raise RunError(f"{option}: expected http:// or https://, got {url!r}")
    subject = subject_of(directory, alpha, tolerance, segment, digest, signed_by)
    truths = None
    if labels is not None:
        truths = reading.Truths(subject.bundle)
        truths.read(labels)
    place = None if out is None else Place.of(out)
    kept = None if place is None else run.kept_at(place, subject.bundle.digest)
    running = run.resumed(subject, log, truths, kept)
    with Progress("records") as progress:
        labelled = running.read(progress.report)
    report = running.judged(labelled)
    click.echo(run.encoded(report).decode() if as_json else "\n".join(text.lines(report)), nl=not as_json)
    if place is not None:
        _write(place, running, report, notify)
    if push is not None:
        prometheus.push(push, prometheus.metrics(report))
    return ALARM if report.alarm and not exit_zero else FINE


def _write(place: Place, running: run.Run, report: run.Report, notify: str | None) -> None:
    """Write the report, tell what was not told before, and write what the next run goes on with."""
    with place.whole(run.REPORT) as file:
        file.write(run.encoded(report))
    if find_spec("jinja2") is not None:  # of the extra `report`; without it there is no page
        from tabserve.monitor.page import page

        with place.whole(run.PAGE) as file:
            file.write(page(report).encode())
    with place.whole(run.METRICS) as file:
        file.write(prometheus.metrics(report))
    told = list(running.told)
    if notify is not None:
        new = [alarm for alarm in report.alarms if alarm.alarm_id(report.digest) not in told]
        sent = events.send(notify, report, new, place.below(run.REPORT))
        told += sent
        if len(sent) < len(new):
            click.echo(f"{len(new) - len(sent)} events were not taken; the next run sends them.", err=True)
    with place.whole(run.STATE) as file:
        file.write(running.counts.kept(report.digest, sorted(running.files), told))
    place.clear()


def simulated(directory: Path, *, rows_per_day: int, labelled: float, years: int, seed: int, **options: object) -> str:
    """What this bundle's monitor would do, as a table. Raises one of REFUSED."""
    subject = subject_of(directory, **options)  # type: ignore[arg-type]
    return "\n".join(simulate.lines(subject, rows_per_day, labelled, years, seed))


def subject_of(
    directory: Path,
    alpha: float,
    tolerance: Sequence[str],
    segment: Sequence[str],
    digest: str | None = None,
    signed_by: str | None = None,
) -> Subject:
    """What of a bundle is compared. digest, signed_by: refuse any other. Raises BundleError and RunError."""
    found = bundles.load(directory, digest=digest, allow_joblib=True, signed_by=signed_by)
    return Subject(found, alpha, tolerances(tolerance), segment)


def tolerances(given: Sequence[str]) -> Tolerances:
    """Tolerances from `name=number`. Raises RunError."""
    found: dict[str, float] = {}
    names = Tolerances.__struct_fields__
    for each in given:
        name, _, number = each.partition("=")
        try:
            found[name] = float(number)
        except ValueError as error:
            raise RunError(f"--tolerance: expected NAME=NUMBER, got {each!r}") from error
        if name not in names or not 0 <= found[name] < 1:
            raise RunError(f"--tolerance: expected {', '.join(names)} from 0 to below 1, got {each!r}")
    return msgspec.convert(found, Tolerances)
