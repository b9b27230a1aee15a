"""What a monitor would do with a bundle's own data: false alarms in a year, and days to find a change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.monitor.bands import FEWEST, band, interval
from tabserve.monitor.columns import Column
from tabserve.monitor.labels import checks_of as labels_checks
from tabserve.monitor.labels import outcome_of
from tabserve.monitor.run import Subject
from tabserve.monitor.verdict import KINDS, Rules, checks_of, missing_chance, values_chance, window_alpha

DAYS, WEEK = 364, 7
SIZES = (0.1, 0.15, 0.2, 0.3)
ERRORS = (0.03, 0.05, 0.1)
_CELLS_AT_ONCE = 20_000_000


class Found(msgspec.Struct, frozen=True):
    """The first day with an alarm in each year, DAYS where there is none."""

    days: Array

    @property
    def share(self) -> float:
        """The part of the years with an alarm."""
        return float((self.days < DAYS).mean())

    def day(self, part: float) -> int | None:
        """The day by which this part of the years has an alarm, from 1; None if it has not."""
        found = float(np.quantile(self.days, part, method="higher"))
        return None if found >= DAYS else int(found) + 1


def alarms(
    column: Column,
    rules: Rules,
    rows: int,
    years: int,
    random: np.random.Generator,
    shift: float = 0.0,
    missing: float = 0.0,
) -> Found:
    """First alarms of one column in years of days with so many rows, looked at daily.

    The bundle's histogram is the truth, from which the reference is drawn anew for each year: rows by cell. shift: how
    far the values' distribution is from the first day on. missing: what is added to the missing rate.
    """
    truth = column.reference / column.reference.sum()
    now = _missing(_shifted(column, truth, shift), missing)
    at_once = max(1, _CELLS_AT_ONCE // (DAYS * column.size))
    first = []
    for start in range(0, years, at_once):
        some = min(at_once, years - start)
        reference = random.multinomial(int(column.reference.sum()), truth, some)[:, None]
        days = random.multinomial(rows, now, (some, DAYS))
        first.append(_first(column, rules, days, reference))
    return Found(np.concatenate(first))


def _first(column: Column, rules: Rules, days: Array, reference: Array) -> Array:
    """The first day on which any window has an alarm [years].

    days [years, days, cells]; reference [years, 1, cells].
    """
    alarm = np.zeros(days.shape[:2], bool)
    for kind in KINDS:
        cells, number = windowed(kind, days)
        alpha = np.array([window_alpha(kind, each, rules.each) for each in number.tolist()])
        alarm |= _beyond(column, rules, cells, reference, alpha)
    return np.where(alarm.any(axis=1), alarm.argmax(axis=1), DAYS)


def windowed(kind: str, days: Array) -> tuple[Array, Array]:
    """What a window of the kind holds at the end of each day [years, days, cells], and its number [days]."""
    count = days.shape[1]
    if kind == "day":
        return days, np.arange(count) + 1
    if kind == "release":
        return days.cumsum(axis=1), np.ones(count, np.intp)
    weeks = days.reshape(len(days), count // WEEK, WEEK, -1).cumsum(axis=2)
    return weeks.reshape(days.shape), np.arange(count) // WEEK + 1


def _beyond(column: Column, rules: Rules, cells: Array, reference: Array, alpha: Array) -> Array:
    """Where the distance is beyond chance and tolerance [years, days]."""
    tolerance = rules.tolerances.of(column)
    alarm = np.zeros(cells.shape[:2], bool)
    if column.comparable:
        rows, chance = cells[..., :-1].sum(axis=-1), values_chance(column, rules.each)
        gap = column.distance(cells, reference) - band(rows, alpha, column.log_events) - chance
        alarm |= (gap > tolerance) & (rows >= FEWEST)
    if column.may_miss:
        rows = cells.sum(axis=-1)
        shares = [each[..., -1] / np.maximum(each.sum(axis=-1), 1) for each in (cells, reference)]
        chance = missing_chance(column, rules.each)
        alarm |= (np.abs(shares[0] - shares[1]) - band(rows, alpha) - chance > tolerance) & (rows >= FEWEST)
    return alarm


def _shifted(column: Column, truth: Array, shift: float) -> Array:
    """The cells' probabilities after values moved, so that the distance is `shift` or the most that is possible.

    Numbers move from the cells below the edge next to the median to those above, categories from the most frequent to
    the rarest.
    """
    if not shift:
        return truth
    present = truth[:-1].sum()
    values = truth[:-1] / present
    if column.edges is None:
        source, target = int(values.argmax()), int(values.argmin())
        moved = min(shift, values[source])
        values[source] -= moved
        values[target] += moved
    else:
        below = np.arange(len(values)) <= np.abs(values.cumsum() - 0.5).argmin()
        low = values[below].sum()
        moved = min(shift, low)
        values = np.where(below, values * (1 - moved / low), values * (1 + moved / max(1 - low, 1e-12)))
    return np.append(values * present, truth[-1])


def _missing(truth: Array, more: float) -> Array:
    if not more:
        return truth
    share = min(1.0, float(truth[-1]) + more)
    present = truth[:-1].sum()
    return np.append(truth[:-1] / present * (1 - share), share)


def errors(subject: Subject, labels: int, years: int, random: np.random.Generator, shift: float) -> Found:
    """First alarms of the error of all decisions, with so many labels a day.

    shift: what is added to each decision's error.
    """
    outcomes, rules = subject.outcomes, subject.rules
    assert outcomes is not None
    by_decision, wrong = outcomes.confusion.sum(axis=1), outcomes.wrong
    total, shares = int(by_decision.sum()), by_decision / by_decision.sum()
    low = np.zeros((years, DAYS))
    for at, share in enumerate(shares.tolist()):
        now = _share(int(wrong[at]), int(by_decision[at])) + shift
        least, _ = interval(*_labelled(labels * share, now, years, random), rules.each / len(shares))
        low += share * least
    _, high = interval(random.binomial(total, _share(int(wrong.sum()), total), years), total, rules.each)
    return _first_day(low - high[:, None] > rules.tolerances.error)


def outcomes(subject: Subject, at: int, labels: int, years: int, random: np.random.Generator, shift: float) -> Found:
    """First alarms of what one decision's records turn out to be; arguments as of `errors`."""
    known, rules = subject.outcomes, subject.rules
    assert known is not None
    rows, total = int(known.confusion[at].sum()), int(known.confusion.sum())
    before = _share(int(known.happened[at]), rows)
    now = before - shift if before > 0.5 else before + shift
    low, high = interval(*_labelled(labels * rows / total, now, years, random), rules.each)
    least, most = interval(random.binomial(rows, before, years), rows, rules.each)
    gap = np.maximum(low - most[:, None], least[:, None] - high)
    return _first_day(gap > rules.tolerances.error)


def _share(part: int, whole: int) -> float:
    return part / max(whole, 1)


def _labelled(daily: float, share: float, years: int, random: np.random.Generator) -> tuple[Array, Array]:
    """Hits and rows at the end of each day [years, days]."""
    rows = random.poisson(daily, (years, DAYS))
    return random.binomial(rows, min(max(share, 0.0), 1.0)).cumsum(axis=1), rows.cumsum(axis=1)


def _first_day(alarm: Array) -> Found:
    return Found(np.where(alarm.any(axis=1), alarm.argmax(axis=1), DAYS))


def false_alarms(subject: Subject, rows: int, labels: int, years: int, seed: int) -> float:
    """The part of the years without a change that have an alarm, if what is checked is independent of each other."""
    random = np.random.default_rng(seed)
    quiet = np.ones(years, bool)
    for column in subject.columns:
        if checks_of(column):
            quiet &= alarms(column, subject.rules, rows, years, random).days == DAYS
    if labels_checks(subject.evaluation):
        quiet &= errors(subject, labels, years, random, 0.0).days == DAYS
        for at in range(len(subject.names)):
            quiet &= outcomes(subject, at, labels, years, random, 0.0).days == DAYS
    return float(1 - quiet.mean())


def lines(subject: Subject, rows: int, labelled: float, years: int, seed: int) -> Iterator[str]:
    """The simulation's result as lines. labelled: the part of the rows that get a label, the same day."""
    labels = round(rows * labelled)
    yield f"{rows:,} rows a day, looked at daily for a year, {subject.rules.checks} checks, {years} simulated years"
    share = false_alarms(subject, rows, labels, years, seed)
    yield f"without a change: an alarm in {share:.1%} of the years; at most {subject.rules.alpha:.0%} ever"
    random, few = np.random.default_rng(seed + 1), max(20, years // 10)
    table: list[tuple[str, ...]] = [
        ("change from the first day on", "by", "median day", "90 % by day", "found in a year")
    ]
    for column in subject.columns:
        table += _rows_of(column, subject.rules, rows, few, random)
    if labels_checks(subject.evaluation):
        table += [_row("the error", size, errors(subject, labels, few, random, size)) for size in ERRORS]
        for at, name in enumerate(subject.names):
            found = [outcomes(subject, at, labels, few, random, size) for size in ERRORS]
            table += [_row(outcome_of(name), size, each) for size, each in zip(ERRORS, found, strict=True)]
    yield from _aligned(table)


def _rows_of(
    column: Column, rules: Rules, rows: int, years: int, random: np.random.Generator
) -> Iterator[tuple[str, ...]]:
    if not column.judged:
        return
    name = f"`{column.name}`" if column.of == "feature" else f"the {column.name}"
    for size in SIZES if column.comparable else ():
        yield _row(f"{name} shifted", size, alarms(column, rules, rows, years, random, shift=size))
    for size in SIZES if column.may_miss else ():
        yield _row(f"{name} missing", size, alarms(column, rules, rows, years, random, missing=size))


def _row(name: str, size: float, found: Found) -> tuple[str, ...]:
    days = [found.day(part) for part in (0.5, 0.9)]
    return (name, f"{size:.2f}", *("never" if day is None else str(day) for day in days), f"{found.share:.0%}")


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
