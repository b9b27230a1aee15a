"""What has changed beyond chance and tolerance, by window; and what is said of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import msgspec

from tabserve.arrays import Array
from tabserve.monitor.bands import FEWEST, band, reference_band, reference_event_band, spent
from tabserve.monitor.columns import Column, psi
from tabserve.monitor.counts import Counts

RECENT_DAYS = 14
"""Days and weeks that began earlier are no longer judged."""
KINDS = ("day", "week", "release")
_WEEK, _THURSDAY = 7, 3
_CALENDAR = "it goes with the calendar"


class Tolerances(msgspec.Struct, frozen=True):
    """Changes that are no alarm, as differences of shares."""

    score: float = 0.05
    feature: float = 0.1
    error: float = 0.02

    def of(self, column: Column) -> float:
        """The tolerance of a column's checks."""
        return self.feature if column.of == "feature" else self.score


class Rules(msgspec.Struct, frozen=True):
    """alpha: the probability of any false alarm, over all checks, windows and time. checks: how many there are."""

    alpha: float
    tolerances: Tolerances
    checks: int

    @property
    def each(self) -> float:
        """Alpha for one side of one check: half of a check's part is for the windows, half for the reference."""
        return self.alpha / self.checks / 2


class Finding(msgspec.Struct, frozen=True):
    """One comparison in one window.

    what: the feature, `score`, `decision`, or a name of a label's check. of: `feature`, `score`, `decision`, `error`.
    measure: `values` or `missing` of a column, `error`, or `outcome` of a decision.
    start, end: days since 1970, the end not included. rows: that were compared.
    distance: from the reference. bound: how much of it may be chance, in the window and in the reference together.
    alarm: whether distance - bound > tolerance. psi: shown only. note: why it is not judged.
    """

    what: str
    of: str
    measure: str
    window: str
    start: int
    end: int
    rows: int
    distance: float | None
    bound: float | None
    tolerance: float
    alarm: bool
    now: float | None = None
    reference: float | None = None
    psi: float | None = None
    note: str = ""

    def alarm_id(self, digest: str) -> str:
        """Names the alarm: the same check of the same bundle is the same alarm in every window."""
        text = "\n".join([digest, self.of, self.what, self.measure])
        return hashlib.sha256(text.encode()).hexdigest()


def week_start(days: Array) -> Array:
    """The first days, Mondays, of the weeks of some days [days since 1970]."""
    return (days + _THURSDAY) // _WEEK * _WEEK - _THURSDAY


def windows(first: int, last: int) -> Iterator[tuple[str, int, int, int]]:
    """Kind, number, start and end of the windows to judge. The number counts all windows of the kind, from 1."""
    for day in range(max(first, last - RECENT_DAYS + 1), last + 1):
        yield "day", day - first + 1, day, day + 1
    first_week, last_week = ((day + _THURSDAY) // _WEEK for day in (first, last))
    for week in range(max(first_week, last_week - RECENT_DAYS // _WEEK + 1), last_week + 1):
        start = week * _WEEK - _THURSDAY
        yield "week", week - first_week + 1, start, start + _WEEK
    yield "release", 1, first, last + 1


def window_alpha(kind: str, number: int, alpha: float) -> float:
    """The part of a check's alpha for one window; a third is for each kind."""
    part = alpha / len(KINDS)
    return part if kind == "release" else float(spent(part, number))


def checks_of(column: Column) -> int:
    """How many checks a column has."""
    return (int(column.comparable) + int(column.may_miss)) if column.judged else 0


def drift(counts: Counts, rules: Rules) -> list[Finding]:
    """Every column against its reference in every window to judge."""
    found: list[Finding] = []
    if not counts.rows:
        return found
    for kind, number, start, end in windows(counts.first, counts.last):
        window, alpha = counts.window(start, end), window_alpha(kind, number, rules.each)
        for column, cells in zip(counts.columns, window.cells, strict=True):
            about = _About(kind, start, end, counts.largest, alpha)
            found += _compared(column, *cells, about, rules)
    return found


class _About(msgspec.Struct, frozen=True):
    """A window to judge: its kind and days, the largest weight of the log, and alpha for one check."""

    kind: str
    start: int
    end: int
    largest: float
    alpha: float


def _compared(column: Column, rows: Array, weights: Array, about: _About, rules: Rules) -> Iterator[Finding]:
    tolerance = rules.tolerances.of(column)
    if column.comparable:
        present, distance = int(rows[:-1].sum()), float(column.distance(weights, column.reference))
        bound = values_bound(column, present, weights[:-1].sum(), about.largest, about.alpha, rules.each)
        yield _finding(column, "values", about, present, distance, bound, tolerance, psi=_psi(column, weights))
    if column.may_miss:
        total, mass = int(rows.sum()), float(weights.sum())
        now = float(weights[-1] / mass) if mass else math.nan
        reference = float(column.reference[-1] / column.reference.sum())
        bound = missing_bound(column, total, mass, about.largest, about.alpha, rules.each)
        shares = {"now": now, "reference": reference}
        yield _finding(column, "missing", about, total, abs(now - reference), bound, tolerance, **shares)


def values_bound(column: Column, rows: int, weight: float, largest: float, alpha: float, reference: float) -> float:
    """How much of a column's distance may be chance. alpha: of the window; reference: of the reference."""
    ratio = largest * rows / weight if rows else 1.0
    return float(band(rows, alpha, column.log_events, ratio)) + values_chance(column, reference)


def values_chance(column: Column, alpha: float) -> float:
    """How much of a column's distance may be chance in the reference."""
    present = int(column.reference[:-1].sum())
    if column.edges is None:
        return reference_event_band(present, alpha, column.log_events)
    return reference_band(present, alpha)


def missing_bound(column: Column, rows: int, weight: float, largest: float, alpha: float, reference: float) -> float:
    """How much of a change of the missing rate may be chance; arguments as of `values_bound`."""
    ratio = largest * rows / weight if rows else 1.0
    return float(band(rows, alpha, ratio=ratio)) + missing_chance(column, reference)


def missing_chance(column: Column, alpha: float) -> float:
    """How much of a change of the missing rate may be chance in the reference."""
    return reference_event_band(int(column.reference.sum()), alpha)


def _psi(column: Column, weights: Array) -> float | None:
    return psi(weights[:-1], column.reference[:-1]) if weights[:-1].sum() else None


def _finding(
    column: Column,
    measure: str,
    about: _About,
    rows: int,
    distance: float,
    bound: float,
    tolerance: float,
    **shown: float | None,
) -> Finding:
    note = ""
    if not column.judged:
        feature = column.of == "feature"
        note = "shown only: " + (_CALENDAR if feature else "the bundle was saved without held-out records")
    elif rows < FEWEST:
        note = f"not judged: fewer than {FEWEST} rows"
    alarm = not note and bool(distance - bound > tolerance)
    some = rows > 0
    return Finding(
        column.name,
        column.of,
        measure,
        about.kind,
        about.start,
        about.end,
        rows,
        distance if some else None,
        bound if some else None,
        tolerance,
        alarm,
        **(shown if some else {}),
        note=note,
    )


def sentence(alarms: Sequence[Finding], judged: int) -> str:
    """The verdict."""
    if not judged:
        return "Nothing could be judged yet."
    if not alarms:
        return "Nothing has changed beyond chance and tolerance."
    names = list(dict.fromkeys(told(alarm) for alarm in alarms))
    return f"Retrain: {', '.join(names)} changed beyond chance and tolerance."


def told(finding: Finding) -> str:
    """What a finding is about, in words."""
    if finding.of in ("score", "decision"):
        return f"the {finding.what}"
    if finding.of == "error":
        return finding.what
    return f"`{finding.what}`" if finding.measure == "values" else f"how often `{finding.what}` is missing"
