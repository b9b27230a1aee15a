"""Evaluate XGBoost's models in oneDAL, which converts them at load. Only bundles that were saved for it do so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tabserve import extras
from tabserve.arrays import Array, Features, blanked
from tabserve.bundle.errors import BundleError
from tabserve.bundle.files import File
from tabserve.bundle.manifest import ModelInfo
from tabserve.engines import xgboost as xgb

_CLASSES = frozenset({"binary:logistic", "multi:softprob"})
# For these, XGBoost's answer is its margin, which is what oneDAL computes.
_VALUES = frozenset({"reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:squaredlogerror"})
_REMEDY = "Save it without this engine."


class OneDALEngine:
    """A Booster converted to oneDAL's trees, on an FP32 matrix.

    A row's last bits depend on how many rows come with it, because the trees are added up in different orders. With
    several threads they would depend on their number as well, so oneDAL has one, in the whole process.
    """

    name = "onedal"
    row_independent = False

    def __init__(self, file: File, info: ModelInfo) -> None:
        """Raises BundleError."""
        daal4py = library()
        self._model = _converted(daal4py, file)
        daal4py.daalinit(1)
        self._missing = info.missing
        self._classes = np.array(info.classes) if info.classes else None
        self.outputs = frozenset({"predict", "predict_proba"} if info.classes else {"predict"})

    def run(self, features: Features, outputs: Sequence[str]) -> dict[str, Array]:
        """The named outputs for every row. Raises oneDAL's RuntimeError."""
        features = blanked(np.asarray(features), self._missing)
        if self._classes is None:
            return {name: self._model.predict(features) for name in outputs}
        probabilities = self._model.predict_proba(features)
        answers = {"predict_proba": probabilities, "predict": self._classes[probabilities.argmax(axis=1)]}
        return {name: answers[name] for name in outputs}


def library() -> Any:
    """The library. Raises BundleError where it is not installed."""
    try:
        import daal4py
    except ModuleNotFoundError as error:
        raise BundleError("onedal", f"{error.name} is not installed", extras.how("onedal")) from error
    return daal4py


def _converted(daal4py: Any, file: File) -> Any:
    """The model in a file, up to the best iteration of early stopping. Raises BundleError."""
    booster = xgb.read(file)
    objective, kind = xgb.objective(booster), xgb.kind(booster)
    if "c" in (booster.feature_types or ()):
        raise BundleError(file.name, "oneDAL's trees have no categorical splits", _REMEDY)
    if kind != "gbtree" or objective not in _CLASSES | _VALUES:
        raise BundleError(file.name, f"{kind} with {objective} is not converted to oneDAL", _REMEDY)
    best = xgb.iterations(booster)[1]
    booster = booster[:best] if best else booster
    # The converter counts trees by it, which is wrong where there are several in a round.
    booster.set_attr(best_iteration=None)
    # It reads thresholds of booleans and integers only if they are typed as numbers.
    booster.feature_names = booster.feature_types = None
    try:
        return daal4py.mb.convert_model(booster)
    except (TypeError, ValueError, KeyError, RuntimeError) as error:  # what the converter and oneDAL raise
        reason = (str(error).splitlines() or [""])[0]
        raise BundleError(file.name, f"not converted to oneDAL: {type(error).__name__}: {reason}", _REMEDY) from error
