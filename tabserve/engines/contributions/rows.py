"""Rows made up of reference rows, to find out with what becomes of a feature."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tabserve.arrays import Array, Features
from tabserve.bundle.manifest import FeatureSpec


def middles(reference: Features, specs: Sequence[FeatureSpec]) -> tuple[Array, Array]:
    """Of each number the median, and how far the values reach (1 where they don't): [numbers] each."""
    columns = [_column(reference, at, spec) for at, spec in enumerate(specs) if spec.type == "number"]
    present = [column[np.isfinite(column)] for column in columns]
    medians = [float(np.median(column)) if len(column) else 0.0 for column in present]
    spreads = [float(np.ptp(column)) if len(column) else 0.0 for column in present]
    return np.array(medians), np.array([spread or 1.0 for spread in spreads])


def one(reference: Features, specs: Sequence[FeatureSpec], numbers: Array) -> Features:
    """One row of these numbers and of each category's first value, in the form that the reference rows have."""
    if isinstance(reference, np.ndarray):
        return numbers[None, :]
    left = iter(numbers.tolist())
    return {
        spec.name: np.array([next(left)]) if spec.type == "number" else np.array([spec.values[0]], object)
        for spec in specs
    }


def replaced(features: Features, name: str, at: int, column: Array) -> Features:
    """The features with another column, of that name or at that place."""
    if isinstance(features, dict):
        return {**features, name: column}
    changed = features.copy()
    changed[:, at] = column
    return changed


def _column(features: Features, at: int, spec: FeatureSpec) -> Array:
    return features[spec.name] if isinstance(features, dict) else features[:, at]
