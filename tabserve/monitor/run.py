"""One run of the monitor: reads what is new, judges, and says what was found."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from tabserve import __version__
from tabserve.bundle import Bundle, evaluation
from tabserve.bundle.tensors import class_names
from tabserve.decision_log import reading as logs
from tabserve.monitor import columns as comparing
from tabserve.monitor import counts as counting
from tabserve.monitor import equity, labels, reading, value, verdict
from tabserve.monitor.columns import Column
from tabserve.monitor.counts import Counts, Kept, Window
from tabserve.monitor.labels import Covered, Labelled, Metrics
from tabserve.monitor.verdict import Finding, Rules, Tolerances
from tabserve.schema.groups import Grouped, grouped
from tabserve.scoring.storage import Place, RunError

FORMAT = 1
STATE, REPORT, PAGE, METRICS = "counts.json", "report.json", "report.html", "metrics.prom"
BLIND = (
    "The expected part comes from calibrated scores. It does not see that the relation between records and outcomes "
    "has changed: only labels show that."
)


INDEPENDENT = (
    "All bounds take rows as independent of each other: where the same customer asks often, chance is larger than they "
    "say."
)


class Performance(msgspec.Struct, frozen=True):
    """What labels say. sentence: what `Covered.expected` cannot show."""

    metrics: Metrics
    weeks: dict[int, Metrics]
    decisions: list[Covered]
    sentence: str = BLIND


class Compared(msgspec.Struct, frozen=True):
    """The shares of a column's cells since the release, and in the reference. names: of the cells."""

    name: str
    of: str
    names: list[str]
    now: list[float]
    reference: list[float]


class Report(msgspec.Struct, frozen=True):
    """What `report.json` holds. Days are counted from 1970-01-01; an `end` is not included.

    alpha: the probability of any false alarm, over all checks and windows for all time. checks: how many share it.
    missing: what the bundle or the log does not have, and how to get it.
    """

    format: int
    tabserve: str
    made: str
    name: str
    version: str
    digest: str
    verdict: str
    alarm: bool
    records: int
    others: int
    shadows: int
    first: int
    last: int
    alpha: float
    checks: int
    tolerances: Tolerances
    findings: list[Finding]
    expected: dict[str, float]
    performance: Performance | None
    equity: list[equity.Statement]
    worth: list[value.Worth]
    missing: list[str]
    columns: list[Compared]
    assumption: str = INDEPENDENT

    @property
    def alarms(self) -> list[Finding]:
        """What has changed, each check once."""
        found: dict[str, Finding] = {}
        for finding in self.findings:
            if finding.alarm:
                found[finding.alarm_id(self.digest)] = finding  # the largest window comes last
        return list(found.values())


class Subject:
    """What of a bundle is compared, and with which part of alpha.

    segments: fields in whose groups scores and decisions are judged too. Raises RunError for one without groups.
    """

    def __init__(self, bundle: Bundle, alpha: float, tolerances: Tolerances, segments: Sequence[str] = ()) -> None:
        self.bundle = bundle
        self.evaluation = bundle.reference.evaluation
        self.outcomes = None if self.evaluation is None else self.evaluation.outcomes
        self.names = evaluation.decision_names(bundle.schema, class_names(bundle))
        self.audited = equity.audited(bundle)
        logged = reading.with_logged_features(bundle.schema).feature_names
        self.segments = [segment(bundle, name) for name in dict.fromkeys(segments)]
        self.columns = comparing.of_bundle(bundle, logged) + comparing.of_segments(bundle, self.segments)
        checks = sum(map(verdict.checks_of, self.columns)) + labels.checks_of(self.evaluation)
        self.rules = Rules(alpha, tolerances, max(checks, 1))
        self.dropped = [name for name in bundle.schema.feature_names if name not in logged]

    def counts(self) -> Counts:
        """Counts of nothing yet."""
        return Counts(self.columns, len(self.names), [len(each.groups) for each in self.audited])


def segment(bundle: Bundle, name: str) -> Grouped:
    """A field by whose groups answers can be judged. Raises RunError."""
    found = grouped([field for field in bundle.schema.record if field.logged == "keep"])
    evaluated = bundle.reference.evaluation
    for each in found:
        if each.field.name == name:
            if evaluated is None or name not in evaluated.segments:
                raise RunError(
                    f"--segment: the bundle does not say how it answered by {name}. "
                    "Save it again with held_out=… (tabserve.train.save)."
                )
            return each
    known = ", ".join(each.field.name for each in found) or "none"
    raise RunError(f"--segment: expected a category or boolean that is logged, got {name!r}; there is {known}.")


class Run:
    """A log, read as far as it goes. kept: the counts of an earlier run, None for the first."""

    def __init__(self, subject: Subject, log: str, truths: reading.Truths | None, kept: Kept | None) -> None:
        self.subject, self._log, self._truths = subject, log, truths
        self.counts = subject.counts()
        self.files: set[str] = set()
        self.told: list[str] = []
        if kept is not None:
            self.counts.restore(kept)
            self.files, self.told = set(kept.files), list(kept.told)
        self.releases: list[str] = []

    def read(self, report: Callable[[int, float], None]) -> Labelled | None:
        """Count the files that are new; with labels, all files are read and joined. Raises RunError.

        report: is told how many records were read, and the part of the files that is done.
        """
        subject, parts = self.subject, []
        reader = reading.Reader(subject.bundle, subject.columns, subject.audited, subject.segments)
        joining = None
        if self._truths is not None:
            far = np.inf if subject.outcomes is None else subject.outcomes.far
            joining = reading.Joining(subject.bundle, self._truths, far)
            self.releases = joining.releases
        place, paths = Place.of(self._log), logs.files(self._log)
        for done, path in enumerate(paths, 1):
            new = path not in self.files
            wanted = new or joining is not None
            for batch in logs.of_file(place, path, columns=reader.needed) if wanted else ():
                asked = reading.asked(batch)
                found = reader.read(asked)
                own = 0 if found is None else len(found.ids)
                if new:
                    self.counts.others += asked.num_rows - own
                    self.counts.shadows += batch.num_rows - asked.num_rows
                if found is not None and new:
                    self.counts.add(found.batch)
                if found is not None and joining is not None:
                    parts.append(joining.join(found))
                report(batch.num_rows, done / len(paths))
            self.files.add(path)
        return labels.joined(parts) if parts else None

    def judged(self, labelled: Labelled | None) -> Report:
        """The verdict on what was read. Raises RunError if no record was of the bundle."""
        subject, counts = self.subject, self.counts
        if not counts.rows:
            raise RunError(
                f"{self._log}: {counts.others} records, none of {subject.bundle.digest}. "
                "Give the bundle that was serving when it was written."
            )
        window = counts.window(counts.first, counts.last + 1)
        findings = verdict.drift(counts, subject.rules)
        if labelled is not None and subject.evaluation is not None:
            findings += labels.judged(labelled, window, subject.names, subject.evaluation, subject.rules)
        alarms = [finding for finding in findings if finding.alarm]
        told = verdict.sentence(alarms, sum(not finding.note for finding in findings))
        manifest = subject.bundle.manifest
        return Report(
            format=FORMAT,
            tabserve=__version__,
            made=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            name=manifest.name,
            version=manifest.version,
            digest=subject.bundle.digest,
            verdict=told,
            alarm=bool(alarms),
            records=counts.rows,
            others=counts.others,
            shadows=counts.shadows,
            first=counts.first,
            last=counts.last,
            alpha=subject.rules.alpha,
            checks=subject.rules.checks,
            tolerances=subject.rules.tolerances,
            findings=findings,
            expected=self._expected(window),
            performance=None if labelled is None else self._performance(labelled, window),
            equity=equity.statements(
                subject.audited, subject.names, window, labelled, subject.rules.alpha, counts.largest
            ),
            worth=self._worth(labelled),
            missing=missing(subject),
            columns=_compared(subject.columns, window),
        )

    def _expected(self, window: Window) -> dict[str, float]:
        """The part of each decision's records that calibrated scores expect to be of the score's class."""
        subject, weights = self.subject, window.decided[1]
        if subject.outcomes is None or not subject.outcomes.knots.size:
            return {}
        shares = zip(subject.names, window.expected.tolist(), weights.tolist(), strict=True)
        return {name: hits / weight for name, hits, weight in shares if weight}

    def _performance(self, labelled: Labelled, window: Window) -> Performance:
        subject = self.subject
        classes = max(len(class_names(subject.bundle)), 1)
        weeks = verdict.week_start(labelled.days)

        def measured(which: Any) -> Metrics:
            return labels.measured(labelled.where(which), subject.names, classes, subject.outcomes)

        return Performance(
            labels.measured(labelled, subject.names, classes, subject.outcomes),
            {int(week): measured(weeks == week) for week in np.unique(weeks)},
            labels.coverage(labelled, window, subject.names, subject.evaluation, subject.rules),
        )

    def _worth(self, labelled: Labelled | None) -> list[value.Worth]:
        decision = self.subject.bundle.schema.outputs.decision
        if labelled is None or decision is None or not decision.value:
            return []
        classes = class_names(self.subject.bundle)
        return value.worth(labelled, value.table(decision.value, self.subject.names, classes), self.releases)


def _compared(columns: Sequence[Column], window: Window) -> list[Compared]:
    found = []
    for column, (_, weights) in zip(columns, window.cells, strict=True):
        now, before = (comparing.shares(each).tolist() for each in (weights, column.reference))
        found.append(Compared(column.name, column.of, column.names, now, before))
    return found


def missing(subject: Subject) -> list[str]:
    """What the bundle or the log does not have, and how to get it."""
    told = []
    again = "save the bundle with held_out=… and labels=… (tabserve.train.save)"
    if subject.evaluation is None:
        told.append(f"the reference's scores and decisions: {again}")
    elif not subject.evaluation.held_out:
        told.append(f"a reference that the model was not trained on, so that scores and errors raise no alarm: {again}")
    if subject.outcomes is None:
        told.append(f"the reference's errors, and the calibration of scores: {again}")
    if subject.dropped:
        told.append(f"features whose fields are not kept in the log: {', '.join(subject.dropped)}")
    audits = [field.name for field in subject.bundle.schema.record if field.use == "audit" and field.logged != "keep"]
    if audits:
        told.append(f"audited fields that are not kept in the log: {', '.join(audits)}")
    blind = [column.name for column in subject.columns if not column.comparable]
    if blind:
        told.append(f"bins that could show a change of {', '.join(blind)}: save the bundle again")
    return told


def kept_at(place: Place, digest: str) -> Kept | None:
    """The counts that an earlier run left; None for none, or for another bundle's. Raises RunError."""
    content = place.read(STATE)
    if content is None:
        return None
    try:
        found = counting.read(content)
    except ValueError as error:
        raise RunError(f"{STATE}: {error}. Remove it, and everything is counted again.") from error
    return found if found.digest == digest else None


def resumed(subject: Subject, log: str, truths: reading.Truths | None, kept: Kept | None) -> Run:
    """A run that goes on from what an earlier one left. Raises RunError if that does not fit the bundle."""
    try:
        return Run(subject, log, truths, kept)
    except ValueError as error:
        raise RunError(f"{STATE}: {error}. Remove it, and everything is counted again.") from error


def encoded(report: Report) -> bytes:
    """`report.json`."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"
