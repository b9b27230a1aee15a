"""Find numbers that may have meant a missing value when a Booster was trained; it does not store them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from tabserve.arrays import Array
from tabserve.bundle.errors import BundleError
from tabserve.bundle.manifest import FeatureSpec
from tabserve.bundle.reference import Columns

_NINES = re.compile(r"-?9{2,}")
_MOST = 8


def candidates(specs: Sequence[FeatureSpec], features: Columns) -> list[float]:
    """Numbers in the sample that may be markers: those that look like one, and 0."""
    numbers = [features[spec.name] for spec in specs if spec.type == "number"]
    found = dict.fromkeys(value for column in numbers for value in _striking(column))
    zero = any((column == 0).any() for column in numbers)
    return [*list(found)[:_MOST], *([0.0] if zero and 0.0 not in found else [])]


def verify(
    specs: Sequence[FeatureSpec], features: Columns, others: Sequence[float], gaps: Sequence[float | None]
) -> None:
    """Refuse a Booster whose answers can't be proven, because a number in the sample may be a marker.

    gaps: how far the sample is from the training data if nothing is a marker, then with each of `others` as the marker.
    Raises BundleError.
    """
    plain, *marked = gaps
    likelier = {
        other
        for other, gap in zip(others, marked, strict=True)
        if plain is not None and gap is not None and 3 * gap < plain
    }
    for spec in specs:
        column = features[spec.name]
        for value in [*_striking(column), *likelier] if spec.type == "number" else []:
            if value in others and (column == value).any():
                raise _unknown(spec.name, value)


def _unknown(name: str, value: float) -> BundleError:
    problem = (
        f"the sample has {value:g} in `{name}`: a Booster does not record whether that was a missing value in training"
    )
    remedy = (
        f"Pass missing={value:g} to save if it was, as in DMatrix(..., missing={value:g}); "
        'otherwise missing=float("nan").'
    )
    return BundleError("model", problem, remedy)


def _striking(column: Array) -> list[float]:
    """Numbers that look like markers.

    That is the lowest or highest number if it is made of nines, or is frequent and farther from all others than they
    spread.
    """
    present, counts = np.unique(column[np.isfinite(column)], return_counts=True)
    if len(present) < 3:
        return []
    low, second, last, high = (present[at] for at in (0, 1, -2, -1))
    ends = ((low, counts[0], second - low, high - second), (high, counts[-1], high - last, last - low))
    return [
        float(value)
        for value, count, distance, spread in ends
        if _NINES.fullmatch(f"{value:g}") or (count > 2 and distance > spread)
    ]
