"""What decisions were worth, where the schema says what each is worth with each outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.monitor.labels import Labelled
from tabserve.monitor.verdict import week_start


class Worth(msgspec.Struct, frozen=True):
    """What the labelled decisions of a week or a release were worth together, and a record on average.

    start: the week's first day, in days since 1970; None for a release.
    """

    release: str
    start: int | None
    rows: int
    total: float
    mean: float


def table(value: Mapping[str, Mapping[str, float]], names: Sequence[str], classes: Sequence[str]) -> Array:
    """The worth of each decision with each true class [decisions, classes]; what the schema does not name is 0."""
    return np.array([[value.get(name, {}).get(each, 0.0) for each in classes] for name in names])


def worth(labelled: Labelled, by: Array, releases: Sequence[str]) -> list[Worth]:
    """The worth by release, and by week of a release; only of records with a label."""
    each = by[labelled.decisions, labelled.true]
    weeks = week_start(labelled.days)
    found = []
    for code, release in enumerate(releases):
        of_release = labelled.releases == code
        if of_release.any():
            found.append(_worth(release, None, labelled.weights[of_release], each[of_release]))
        for week in np.unique(weeks[of_release]).tolist():
            which = of_release & (weeks == week)
            found.append(_worth(release, week, labelled.weights[which], each[which]))
    return found


def _worth(release: str, start: int | None, weights: Array, each: Array) -> Worth:
    total = float(weights @ each)
    return Worth(release, start, len(each), total, total / float(weights.sum()))
