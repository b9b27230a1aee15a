"""How decisions differ between the groups of audited fields, which the model never sees."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from tabserve.bundle import Bundle
from tabserve.monitor.bands import weighted_interval
from tabserve.monitor.counts import Window
from tabserve.monitor.labels import Known, Labelled, known
from tabserve.schema.groups import Grouped, grouped

FEWEST = 100
"""Rows that a group must have to be judged."""
FOUR_FIFTHS = 0.8
"""The ratio from which on rates differ (29 CFR 1607.4 D); 1/0.8 in the other direction."""
_LABELLED = ("true positive rate", "false positive rate", "outcome")


class Statement(msgspec.Struct, frozen=True):
    """One rate of one group: its size, where it lies, and its ratio to the largest group's.

    measure: `selection rate` is the part of the group with the decision. `true positive rate` and `false positive rate`
    are the same among records whose outcome is of the score's class, and among the others. `outcome` is the part of
    those with the decision whose outcome is of the score's class. `calibration` is the mean score less the part
    of hits.
    low, high: all intervals of a report hold together, however often one looks. differs: the whole interval of the
    ratio is below 0.8, or above 1.25.
    note: why nothing is claimed.
    """

    field: str
    group: str
    measure: str
    decision: str
    rows: int
    share: float | None
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    differs: bool = False
    note: str = ""


class _Rate(msgspec.Struct, frozen=True):
    """Hits among rows, as weights, the number of rows, and the largest weight that one may have."""

    hits: float
    weight: float
    rows: int
    largest: float


def audited(bundle: Bundle) -> list[Grouped]:
    """The audited fields with groups that the log holds."""
    return grouped([field for field in bundle.schema.record if field.use == "audit" and field.logged == "keep"])


def statements(
    fields: Sequence[Grouped],
    names: Sequence[str],
    window: Window,
    labelled: Labelled | None,
    alpha: float,
    largest: float,
) -> list[Statement]:
    """Every rate of every group. alpha: the probability that any interval is ever wrong."""
    measures = 1 + (len(_LABELLED) if labelled is not None else 0)
    count = sum(len(field.groups) for field in fields) * len(names) * measures
    about = None if labelled is None else known(labelled, window)
    found: list[Statement] = []
    for place, field in enumerate(fields):
        rows, weights = window.groups[place]
        biggest = int(rows.sum(axis=1).argmax())
        for at, name in enumerate(names):
            rates = [
                _Rate(float(w[at]), float(w.sum()), int(n.sum()), largest) for n, w in zip(rows, weights, strict=True)
            ]
            found += _compared(field, "selection rate", name, rates, biggest, alpha / count, "")
            if labelled is not None and about is not None:
                for measure, some in _of_labels(labelled, place, len(field.groups), at, largest):
                    note = _note(measure, about, at)
                    found += _compared(field, measure, name, some, biggest, alpha / count, note)
        if labelled is not None:
            found += _calibration(field, labelled, place)
    return found


def _note(measure: str, about: Known, decision: int) -> str:
    """Why nothing is claimed of a rate, if so. The outcome of a decision needs labels of that decision alone."""
    if measure == _LABELLED[2]:
        return "" if about.claimed[decision] else "shown only: less than half of this decision's records have a label"
    return "" if about.alike else "shown only: labels are not there for all decisions alike"


def _of_labels(
    labelled: Labelled, place: int, groups: int, decision: int, largest: float
) -> Iterator[tuple[str, list[_Rate]]]:
    decided, weights = labelled.decisions == decision, labelled.weights
    alike = float(weights[decided].max(initial=0.0))  # records of one decision are sampled alike
    for measure, among, hits, most in (
        (_LABELLED[0], labelled.hits, decided, largest),
        (_LABELLED[1], ~labelled.hits, decided, largest),
        (_LABELLED[2], decided, labelled.hits, alike),
    ):
        of_group = [among & (labelled.groups[place] == group) for group in range(groups)]
        rates = [_Rate(float(weights[w] @ hits[w]), float(weights[w].sum()), int(w.sum()), most) for w in of_group]
        yield measure, rates


def _compared(
    field: Grouped,
    measure: str,
    decision: str,
    rates: Sequence[_Rate],
    biggest: int,
    alpha: float,
    note: str,
) -> Iterator[Statement]:
    bounds = [weighted_interval(rate.hits, rate.weight, rate.rows, rate.largest, alpha) for rate in rates]
    base = rates[biggest]
    for at, (group, rate, (low, high)) in enumerate(zip(field.groups, rates, bounds, strict=True)):
        if not rate.rows:
            continue
        share = rate.hits / rate.weight
        few = f"not judged: fewer than {FEWEST} records" if min(rate.rows, base.rows) < FEWEST else note
        shown = Statement(field.field.name, group, measure, decision, rate.rows, share, note=few)
        if few:
            yield shown
            continue
        under, over = bounds[biggest]
        ratio = rate.hits / rate.weight / (base.hits / base.weight) if base.hits else None
        ends = (1.0, 1.0) if at == biggest else (low / over if over else 0.0, high / under if under else math.inf)
        yield msgspec.structs.replace(
            shown,
            low=low,
            high=high,
            ratio=ratio,
            ratio_low=ends[0],
            ratio_high=ends[1] if math.isfinite(ends[1]) else None,
            differs=ends[1] < FOUR_FIFTHS or ends[0] > 1 / FOUR_FIFTHS,
        )


def _calibration(field: Grouped, labelled: Labelled, place: int) -> Iterator[Statement]:
    for at, group in enumerate(field.groups):
        which = labelled.groups[place] == at
        if which.any() and not np.isnan(labelled.scores[which]).any():
            gap = float(np.average(labelled.scores[which] - labelled.hits[which], weights=labelled.weights[which]))
            yield Statement(field.field.name, group, "calibration", "", int(which.sum()), gap, note="shown only")
