"""What records turned out to be, where that is known: how good the answers were, and what can be claimed of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.bundle import measures
from tabserve.bundle.evaluation import Evaluation, Outcomes
from tabserve.monitor.bands import interval, weighted_interval
from tabserve.monitor.counts import Window
from tabserve.monitor.verdict import Finding, Rules

COVERED = 0.5
"""The part of a decision's records that must have a label before anything is claimed of the decision."""
ALIKE = 0.9
"""How alike the covered parts of the decisions must be for a claim across decisions: the smallest by the largest."""


class Labelled(NamedTuple):
    """Decisions whose outcome is known, [rows] each.

    true: the place of the true class, 0 for a regression. hits: whether it is the class that the score is for.
    wrong: whether the label is not the true class, or the value was off by more than the reference's `far`.
    scores: NaN for a model without any. groups: by audited field, the places in its groups.
    """

    days: Array
    releases: Array
    weights: Array
    decisions: Array
    true: Array
    hits: Array
    wrong: Array
    scores: Array
    groups: Sequence[Array]

    def where(self, which: Array) -> Labelled:
        """Some of the rows."""
        *arrays, groups = self
        return Labelled._make([*(each[which] for each in arrays), [each[which] for each in groups]])


def joined(parts: Sequence[Labelled]) -> Labelled:
    """The rows of all parts, of which there is at least one."""
    *arrays, groups = zip(*parts, strict=True)
    codes = [np.concatenate(each) for each in zip(*groups, strict=True)]
    return Labelled._make([*map(np.concatenate, arrays), codes])


class Metrics(msgspec.Struct, frozen=True):
    """How good the answers of some labelled rows were, by weight; None where there is nothing to compute it from.

    confusion: by decision, the weight of each true class. deciles: weight, mean score and share of hits in the tenths
    of the reference's scores. error: the part that was wrong.
    """

    rows: int
    error: float | None
    auc: float | None
    brier: float | None
    confusion: dict[str, list[float]]
    deciles: list[list[float | None]]


class Covered(msgspec.Struct, frozen=True):
    """How much is known of one decision's records.

    hits: the part of the labelled records whose outcome is of the score's class (of a regression: that were far off),
    low to high. expected: what the calibrated scores of all its records make of it, which does not see that the
    relation of records and outcomes has changed. reference: the part when the bundle was saved.
    """

    decision: str
    rows: int
    labelled: int
    coverage: float
    hits: float | None
    low: float
    high: float
    expected: float | None
    reference: float | None


class Known(NamedTuple):
    """What is known of each decision, for all of the release: rows, labelled ones, and how much of them is labelled."""

    rows: Array
    labelled: Array
    coverage: Array

    @property
    def claimed(self) -> Array:
        """The decisions of which something may be claimed."""
        return np.asarray(self.coverage >= COVERED)

    @property
    def alike(self) -> bool:
        """Whether labels are there for all decisions alike, so that nothing was selected by decision."""
        some = self.coverage[self.rows > 0]
        return bool(len(some) and some.min() >= COVERED and some.min() >= ALIKE * some.max())


def known(labelled: Labelled, window: Window) -> Known:
    """What is known of each decision."""
    rows = window.decided[0]
    found = np.bincount(labelled.decisions, minlength=len(rows))
    return Known(rows, found, np.divide(found, rows, out=np.zeros(len(rows)), where=rows > 0))


def measured(labelled: Labelled, names: Sequence[str], classes: int, outcomes: Outcomes | None) -> Metrics:
    """The metrics of labelled rows."""
    rows, weights = len(labelled.days), labelled.weights
    scored = rows > 0 and not np.isnan(labelled.scores).any()
    table = measures.confusion(labelled.decisions, labelled.true, (len(names), classes), weights)
    edges = None if outcomes is None or not scored else outcomes.edges
    tenths = [] if edges is None else measures.deciles(labelled.scores, labelled.hits, weights, edges).tolist()
    probable = scored and outcomes is not None and not np.isnan(outcomes.brier)
    return Metrics(
        rows,
        _number(np.average(labelled.wrong, weights=weights)) if rows else None,
        _number(measures.auc(labelled.scores, labelled.hits, weights)) if scored and classes > 1 else None,
        _number(measures.brier(labelled.scores, labelled.hits, weights)) if probable else None,
        dict(zip(names, table.tolist(), strict=True)),
        [[_number(each) for each in tenth] for tenth in tenths],
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def checks_of(evaluation: Evaluation | None) -> int:
    """How many checks labels allow: one of the error, and one of each decision's outcomes."""
    if evaluation is None or evaluation.outcomes is None or not evaluation.held_out:
        return 0
    return 1 + len(evaluation.decisions.counts)


def coverage(
    labelled: Labelled, window: Window, names: Sequence[str], evaluation: Evaluation | None, rules: Rules
) -> list[Covered]:
    """What is known of each decision.

    The records of one decision are sampled alike, so that the largest weight among them is the largest possible one.
    """
    about, made = known(labelled, window), []
    outcomes = None if evaluation is None else evaluation.outcomes
    happened = _happened(labelled, outcomes)
    for at, name in enumerate(names):
        which = labelled.decisions == at
        hits, weight = float(labelled.weights[which] @ happened[which]), float(labelled.weights[which].sum())
        largest = float(labelled.weights[which].max(initial=0.0))
        low, high = weighted_interval(hits, weight, int(about.labelled[at]), largest, rules.each)
        mass = float(window.decided[1][at])
        calibrated = outcomes is not None and outcomes.knots.size and mass
        made.append(
            Covered(
                name,
                int(about.rows[at]),
                int(about.labelled[at]),
                float(about.coverage[at]),
                hits / weight if weight else None,
                low,
                high,
                float(window.expected[at]) / mass if calibrated else None,
                _reference_share(outcomes, at),
            )
        )
    return made


def _happened(labelled: Labelled, outcomes: Outcomes | None) -> Array:
    """Hits, or for a regression what was far off."""
    return labelled.hits if outcomes is None or len(outcomes.hits) else labelled.wrong


def _reference_share(outcomes: Outcomes | None, at: int) -> float | None:
    if outcomes is None or not (total := outcomes.confusion[at].sum()):
        return None
    return float(outcomes.happened[at] / total)


def judged(
    labelled: Labelled, window: Window, names: Sequence[str], evaluation: Evaluation, rules: Rules
) -> list[Finding]:
    """The error, and each decision's outcomes, against the reference's; for all of the release.

    Labels are taken to be there or not for reasons that, among the records of one decision, have nothing to do with
    the outcome.
    """
    outcomes = evaluation.outcomes
    if outcomes is None:
        return []
    start, end = (int(labelled.days.min()), int(labelled.days.max()) + 1) if len(labelled.days) else (0, 0)
    about = known(labelled, window)
    decisions = coverage(labelled, window, names, evaluation, rules)
    found = [
        _error(labelled, window, about, outcomes, rules),
        *(_outcome(decided, at, outcomes, rules) for at, decided in enumerate(decisions)),
    ]
    note = "" if evaluation.held_out else "shown only: the reference is of records that the model may have learned"
    replace = msgspec.structs.replace
    return [replace(each, start=start, end=end, **({"note": note, "alarm": False} if note else {})) for each in found]


def _error(labelled: Labelled, window: Window, about: Known, outcomes: Outcomes, rules: Rules) -> Finding:
    """The error of all decisions, at least: decisions of which nothing may be claimed count as without error."""
    shares: list[float] = (window.decided[1] / window.weight).tolist()
    low = now = 0.0
    for at in np.flatnonzero(about.claimed).tolist():
        which = labelled.decisions == at
        wrong, weight = float(labelled.weights[which] @ labelled.wrong[which]), float(labelled.weights[which].sum())
        rows, largest = int(about.labelled[at]), float(labelled.weights[which].max())
        least, _ = weighted_interval(wrong, weight, rows, largest, rules.each / len(shares))
        low, now = low + shares[at] * least, now + shares[at] * wrong / weight
    total, wrong_before = int(outcomes.confusion.sum()), int(outcomes.wrong.sum())
    _, high = interval(wrong_before, total, rules.each)
    before = wrong_before / total
    gap, tolerance = low - float(high), rules.tolerances.error
    none = not about.claimed.any()
    return Finding(
        "the error",
        "error",
        "error",
        "release",
        0,
        0,
        int(about.labelled.sum()),
        None if none else now - before,
        None if none else now - before - gap,
        tolerance,
        not none and gap > tolerance,
        None if none else now,
        before,
        note=f"no claim: labels for less than {COVERED:.0%} of the records of each decision" if none else "",
    )


def _outcome(decided: Covered, at: int, outcomes: Outcomes, rules: Rules) -> Finding:
    low, high = interval(int(outcomes.happened[at]), int(outcomes.confusion[at].sum()), rules.each)
    gap, tolerance = max(decided.low - float(high), float(low) - decided.high), rules.tolerances.error
    known_before = decided.reference is not None
    claimed = decided.coverage >= COVERED and known_before
    note = "" if claimed else f"no claim: {decided.coverage:.0%} of these records have a label"
    if not known_before:
        note = "no claim: the reference has no such decision"
    distance = None
    if decided.hits is not None and decided.reference is not None:
        distance = abs(decided.hits - decided.reference)
    return Finding(
        outcome_of(decided.decision),
        "error",
        "outcome",
        "release",
        0,
        0,
        decided.labelled,
        distance,
        None if distance is None else distance - gap,
        tolerance,
        claimed and gap > tolerance,
        decided.hits,
        decided.reference,
        note=note,
    )


def outcome_of(decision: str) -> str:
    """What a decision's check is called."""
    return f"the outcome of `{decision}`" if decision else "how many are far off"
