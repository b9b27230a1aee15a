"""What an engine is: something that evaluates one model on arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

Features: TypeAlias = Array | dict[str, Array]
"""A matrix [rows, features], or one array [rows] per named feature (numbers as floats, categories as `str` objects)."""


class Engine(Protocol):
    """Evaluates one model.

    Its outputs are some of `predict` [rows], `predict_proba` [rows, classes], `margin` [rows] or [rows, classes], and
    `contributions` [rows, features + 1] or [rows, classes, features + 1]: what each feature adds, the bias last. They
    sum to the margin, or where there is none to the last column of `predict_proba` (binary), to `predict_proba`
    (multiclass) or to `predict`. Requests may be batched together only where rows are independent.
    """

    @property
    def name(self) -> str:
        """`xgboost`, `sklearn` or `onnxruntime`."""

    @property
    def outputs(self) -> frozenset[str]:
        """What it can compute."""

    @property
    def row_independent(self) -> bool:
        """Whether a row's answer is the same bytes whatever rows stand beside it, for every output."""

    def run(self, features: Features, outputs: Sequence[str]) -> dict[str, Array]:
        """The named outputs for every row. Raises whatever the library raises."""


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
