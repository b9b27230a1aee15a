"""Engines: what evaluates a model on arrays. One module per engine, imported only when used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

Features: TypeAlias = Array | dict[str, Array]
"""A matrix [rows, features], or one array [rows] per named feature (numbers as floats, categories as `str` objects)."""


class Engine(Protocol):
    """Evaluates one model.

    outputs: the names it can compute, of `predict` [rows], `predict_proba` [rows, classes],
    `margin` [rows] or [rows, classes], `contributions` [rows, features + 1] or [rows, classes, features + 1]
    (SHAP values of the margin, the bias last).
    row_independent: whether a row's answer is the same bytes whatever rows stand beside it; only then may requests be
    batched together.
    """

    name: str
    outputs: frozenset[str]
    row_independent: bool

    def run(self, features: Features, outputs: Sequence[str]) -> dict[str, Array]:
        """The named outputs for every row. Raises whatever the library raises."""


def rows(features: Features) -> int:
    """How many rows the features hold."""
    return len(features) if isinstance(features, np.ndarray) else len(next(iter(features.values())))


def concatenate(parts: Sequence[Features]) -> Features:
    """The rows of all parts, in order; the parts have the same features."""
    first = parts[0]
    if isinstance(first, np.ndarray):
        return np.concatenate([part for part in parts if isinstance(part, np.ndarray)])
    return {name: np.concatenate([part[name] for part in parts if isinstance(part, dict)]) for name in first}
