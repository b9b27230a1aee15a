"""The interface of an engine, which evaluates one model on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tabserve.arrays import Array, Features


class Engine(Protocol):
    """Evaluates one model.

    Its outputs are among `predict` [rows], `predict_proba` [rows, classes], `margin` [rows] or [rows, classes], and
    `contributions` [rows, features + 1] or [rows, classes, features + 1]. Contributions are what each feature adds, the
    bias last. They sum to the margin, or without one to the last column of `predict_proba` (binary), to `predict_proba`
    (multiclass) or to `predict`. Requests may be batched together only if rows are independent.
    """

    @property
    def name(self) -> str:
        """The engine's name, `xgboost`, `lightgbm`, `sklearn`, `onnxruntime` or `onedal`."""

    @property
    def outputs(self) -> frozenset[str]:
        """The outputs that the engine can compute."""

    @property
    def row_independent(self) -> bool:
        """Whether, for every output, a row's answer is the same bytes whatever the other rows are."""

    def run(self, features: Features, outputs: Sequence[str]) -> dict[str, Array]:
        """The named outputs for every row. Raises whatever the library raises."""
