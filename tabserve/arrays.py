"""Arrays of rows, which models take and give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

Features: TypeAlias = Array | dict[str, Array]
"""A matrix [rows, features], or one array [rows] per named feature (numbers as floats, categories as `str` objects)."""


def rows(features: Features) -> int:
    """How many rows the features hold."""
    return len(features) if isinstance(features, np.ndarray) else len(next(iter(features.values())))


def take(features: Features, which: Array | slice) -> Features:
    """The rows at the given positions."""
    if isinstance(features, np.ndarray):
        return features[which]
    return {name: column[which] for name, column in features.items()}


def concatenate(parts: Sequence[Features]) -> Features:
    """The rows of all parts, in order; the parts have the same features."""
    first = parts[0]
    if isinstance(first, np.ndarray):
        return np.concatenate([part for part in parts if isinstance(part, np.ndarray)])
    columns = [part for part in parts if isinstance(part, Mapping)]
    return {name: np.concatenate([part[name] for part in columns]) for name in first}


def dense(table: Any) -> Array:
    """A transformer's output, which may be a sparse matrix or a DataFrame, as an FP64 matrix."""
    return np.asarray(table.toarray() if hasattr(table, "toarray") else table, np.float64)


def blanked(matrix: Array, numbers: Sequence[float]) -> Array:
    """The matrix with NaN in place of these numbers."""
    found = np.isin(matrix, np.array(numbers, matrix.dtype)) if numbers else None
    return matrix if found is None or not found.any() else np.where(found, np.nan, matrix).astype(matrix.dtype)
