"""Evaluate LightGBM's models through the Booster."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from tabserve.arrays import Array, Features
from tabserve.bundle.errors import BundleError
from tabserve.bundle.files import File
from tabserve.bundle.manifest import ModelInfo
from tabserve.engines import parity

_OBJECTIVE = re.compile(r"^objective=(\S+)", re.MULTILINE)


class LightGBMEngine:
    """A Booster on an FP64 matrix; categories are codes, missing values NaN."""

    name = "lightgbm"

    def __init__(self, file: File, info: ModelInfo, *, threads: int, reference: Features | None = None) -> None:
        """reference: rows to prove independence with. Raises BundleError."""
        self._booster = read(file)
        self._classes = np.array(info.classes, _dtype(info)) if info.classes else None
        self._threads = threads
        self.outputs = frozenset(info.outputs)
        if self._booster.num_feature() != len(info.features):
            got, expected = self._booster.num_feature(), len(info.features)
            raise BundleError(file.name, f"expected {expected} features, got {got}", "Save the bundle again.")
        self.row_independent = (
            reference is not None and self.name in info.row_independent and parity.rows_are_independent(self, reference)
        )

    def run(self, features: Features, outputs: Sequence[str]) -> dict[str, Array]:
        """The named outputs for every row. Raises lightgbm.basic.LightGBMError."""
        matrix = np.ascontiguousarray(features, np.float64)
        values: Array | None = None
        answers: dict[str, Array] = {}
        for name in outputs:
            if name == "margin":
                answers[name] = self._predict(matrix, raw_score=True)
            elif name == "contributions":
                answers[name] = contributions(self._booster, self._predict(matrix, pred_contrib=True))
            else:
                values = self._predict(matrix) if values is None else values
                answers[name] = probabilities(values) if name == "predict_proba" else self._answer(values)
        return answers

    def _predict(self, matrix: Array, **kind: bool) -> Array:
        return np.asarray(self._booster.predict(matrix, num_threads=self._threads, **kind))

    def _answer(self, values: Array) -> Array:
        if self._classes is None:
            return values
        best = values.argmax(axis=1) if values.ndim > 1 else (values > 0.5).astype(np.intp)
        return np.asarray(self._classes[best])


def probabilities(values: Array) -> Array:
    """Probabilities [rows, classes] from a Booster's prediction, which for two classes has one column."""
    return values if values.ndim > 1 else np.column_stack([1.0 - values, values])


def contributions(booster: Any, values: Array) -> Array:
    """Contributions [rows, features + 1] or [rows, classes, features + 1] from LightGBM's flat rows."""
    groups = booster.num_model_per_iteration()
    return values if groups == 1 else values.reshape(len(values), groups, -1)


def read(file: File) -> Any:
    """The Booster in a text file, read by LightGBM itself. Raises BundleError.

    A malformed file can end the process, so verify its digest first.
    """
    import lightgbm

    try:
        return lightgbm.Booster(model_str=file.content.decode())
    except (lightgbm.basic.LightGBMError, ValueError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BundleError(file.name, f"not a model LightGBM can read: {reason}", "Save the bundle again.") from error


def objective(booster: Any) -> str:
    """The name of the training objective, such as `binary`; `none` if the file holds none."""
    found = _OBJECTIVE.search(booster.model_to_string(num_iteration=1))
    return found[1] if found else "none"


def _dtype(info: ModelInfo) -> Any:
    return object if isinstance(info.classes[0], str) else None
