"""Make up rows from reference rows, to find out what a feature is transformed into."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tabserve.arrays import Array, Features
from tabserve.bundle.manifest import FeatureSpec


def middles(reference: Features, specs: Sequence[FeatureSpec]) -> tuple[Array, Array]:
    """Each number's median and range of values (1 if there is none), both [numbers]."""
    columns = [_column(reference, at, spec) for at, spec in enumerate(specs) if spec.type == "number"]
    present = [column[np.isfinite(column)] for column in columns]
    medians = [float(np.median(column)) if len(column) else 0.0 for column in present]
    spreads = [float(np.ptp(column)) if len(column) else 0.0 for column in present]
    return np.array(medians), np.array([spread or 1.0 for spread in spreads])


def one(reference: Features, specs: Sequence[FeatureSpec], numbers: Array) -> Features:
    """One row with these numbers and each category's first value, in the form that the reference rows have."""
    if isinstance(reference, np.ndarray):
        return numbers[None, :]
    left = iter(numbers.tolist())
    return {
        spec.name: np.array([next(left)]) if spec.type == "number" else np.array([spec.values[0]], object)
        for spec in specs
    }


def replaced(features: Features, name: str, at: int, column: Array) -> Features:
    """The features with another column for one feature, found by its name or its position."""
    if isinstance(features, dict):
        return {**features, name: column}
    changed = features.copy()
    changed[:, at] = column
    return changed


def _column(features: Features, at: int, spec: FeatureSpec) -> Array:
    return features[spec.name] if isinstance(features, dict) else features[:, at]
