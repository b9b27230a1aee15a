"""Evaluate scikit-learn's models through the estimator itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tabserve.arrays import Array, Features
from tabserve.bundle.manifest import ModelInfo
from tabserve.engines import parity
from tabserve.engines.contributions.contributor import contributor
from tabserve.engines.estimators import answer, one_job, presenter


class SklearnEngine:
    """An estimator or pipeline on an FP64 matrix, or on columns if it takes text."""

    name = "sklearn"

    def __init__(self, model: Any, info: ModelInfo, *, threads: int, reference: Features) -> None:
        """reference: rows to prove independence with, and to centre contributions on. Raises BundleError."""
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        threadpool_limits(threads)
        one_job(model)
        self._model = model
        self._present = presenter(info.features, info.frame)
        self._classifies = bool(info.classes)
        self.outputs = frozenset(info.outputs)
        self._contributions = (
            contributor(model, self._present, reference, info.features) if "contributions" in self.outputs else None
        )
        self.row_independent = self.name in info.row_independent and parity.rows_are_independent(self, reference)

    def run(self, features: Features, outputs: Sequence[str]) -> dict[str, Array]:
        """The named outputs for every row. Raises whatever the estimator raises."""
        answers: dict[str, Array] = {}
        others = [name for name in outputs if name != "contributions"]
        if self._contributions is not None and len(others) < len(outputs):
            answers["contributions"] = self._contributions(features)
        table = self._present(features) if others else None
        return answers | {name: self._output(name, table) for name in others}

    def _output(self, name: str, table: Any) -> Array:
        found = answer(self._model, name, table)
        if name == "predict" and self._classifies:
            return found.astype(object) if found.dtype.kind in "US" else found
        return np.asarray(found, np.float64)
