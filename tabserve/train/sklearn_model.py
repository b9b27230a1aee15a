"""What a scikit-learn model in memory takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from tabserve.arrays import Array, Features
from tabserve.bundle.errors import BundleError
from tabserve.bundle.manifest import ClassValue, Datatype, EngineName, FeatureSpec, ModelFormat, ModelInfo
from tabserve.bundle.reference import MAX_ROWS, Columns
from tabserve.engines.contributions.contributor import contributor
from tabserve.engines.estimators import presenter
from tabserve.schema.schema import Schema
from tabserve.train import presentation
from tabserve.train.onnx import conversion
from tabserve.train.own import Rows
from tabserve.train.presentation import Truth
from tabserve.train.shape import given
from tabserve.train.steps import ELEMENTWISE, TREES, steps

_RETRAIN = "Train the model on the schema's features, or change the schema."
_FEW = slice(0, 8)


class SklearnModel:
    """An estimator or pipeline of scikit-learn, or of a library that follows its rules."""

    engine: EngineName = "sklearn"
    formats: tuple[ModelFormat, ...] = ("skops", "joblib")
    datatype: Datatype = "FP64"

    def __init__(self, model: Any) -> None:
        self._model = model

    @staticmethod
    def is_kind_of(model: Any) -> bool:
        """Whether a model is an estimator."""
        return hasattr(model, "get_params") and hasattr(model, "predict")

    def describe(
        self, info: ModelInfo, schema: Schema, features: Columns, rows: Sequence[Rows]
    ) -> tuple[ModelInfo, list[Truth]]:
        """How it wants its features, classes and outputs; and what it answers about the user's own table.

        Raises BundleError.
        """
        model = self._model
        verify_names(model, info.features)
        classes = _classes(model, schema)
        asked = partial(ask, model)
        named = hasattr(model, "feature_names_in_")
        truths = presentation.truths(model, asked, info.features, rows, named=named)
        found = presentation.find(asked, info.features, rows, truths, named=named)
        independent: tuple[EngineName, ...] = ("sklearn",) if steps(model) <= ELEMENTWISE | TREES else ()
        info = msgspec.structs.replace(
            info,
            frame=found.frame,
            features=found.features,
            input=input_of(found.frame, found.features),
            classes=classes,
            row_independent=independent,
        )
        return msgspec.structs.replace(info, outputs=_outputs(model, info, features)), truths

    def own_answers(self, info: ModelInfo, features: Features) -> dict[str, Array]:
        """The classes or values `predict` gives, and the probabilities where there are any."""
        table = presenter(info.features, info.frame)(features)
        answers = {"predict": np.asarray(self._model.predict(table))}
        if "predict_proba" in info.outputs:
            answers["predict_proba"] = np.asarray(self._model.predict_proba(table))
        return answers

    def write(self, path: Path, form: ModelFormat) -> None:
        """Write it as skops or joblib. Raises BundleError where the format can't hold it."""
        write(self._model, path, form)

    def onnx_graph(self, _: Path, info: ModelInfo) -> Any:
        """Its ONNX form. Raises NotConvertedError."""
        return conversion.estimator_graph(self._model, info.features, info.frame, zipmap=bool(info.classes))


def write(estimator: Any, path: Path, form: str) -> None:
    """Write an estimator or transformer as skops or joblib. Raises BundleError where the format can't hold it."""
    if form == "joblib":
        import joblib

        joblib.dump(estimator, path)
    else:
        _write_skops(estimator, path)


def verify_names(model: Any, specs: Sequence[FeatureSpec]) -> None:
    """Refuse a model, or preprocessor, fitted on other features than the schema's. Raises BundleError."""
    names = [spec.name for spec in specs]
    fitted = getattr(model, "feature_names_in_", None)
    width = getattr(model, "n_features_in_", len(names))
    if fitted is not None and list(fitted) != names:
        expected, got = ", ".join(names), ", ".join(map(str, fitted))
        raise BundleError("model", f"expected the schema's features [{expected}], got [{got}]", _RETRAIN)
    if width != len(names):
        raise BundleError("model", f"expected the schema's {len(names)} features, got {width}", _RETRAIN)


def ask(model: Any, table: Any) -> dict[str, Array]:
    """All that a model answers about a table. Raises whatever it raises."""
    methods = {"predict": "predict", "predict_proba": "predict_proba", "margin": "decision_function"}
    return {name: np.asarray(getattr(model, of)(table)) for name, of in methods.items() if hasattr(model, of)}


def input_of(frame: str, specs: Sequence[FeatureSpec]) -> Literal["matrix", "columns"]:
    """Columns where the estimator takes text, else one matrix."""
    return "columns" if frame and any(spec.type == "category" for spec in specs) else "matrix"


def _outputs(model: Any, info: ModelInfo, features: Columns) -> tuple[str, ...]:
    found = ["predict"]
    if info.classes:
        found += [name for name in ("predict_proba",) if hasattr(model, "predict_proba")]
        found += ["margin"] if _has_margin(model, info, features) else []
    background = given(info, {name: column[:MAX_ROWS] for name, column in features.items()})
    if contributor(model, presenter(info.features, info.frame), background, info.features) is not None:
        found.append("contributions")
    return tuple(found)


def _has_margin(model: Any, info: ModelInfo, features: Columns) -> bool:
    """Whether `decision_function` gives one value a row, or one per class; an SVC may give one per pair of classes."""
    if not hasattr(model, "decision_function"):
        return False
    some = given(info, {name: column[_FEW] for name, column in features.items()})
    shape = np.shape(model.decision_function(presenter(info.features, info.frame)(some)))
    return len(shape) == 1 if len(info.classes) == 2 else shape[1:] == (len(info.classes),)


def _classes(model: Any, schema: Schema) -> tuple[ClassValue, ...]:
    from sklearn.base import is_classifier

    classes = np.asarray(model.classes_).tolist() if is_classifier(model) else []
    fits = {"binary": len(classes) == 2, "multiclass": len(classes) > 2, "regression": not classes}[schema.task]
    if not fits or any(isinstance(value, list) for value in classes):
        got = f"a classifier of {len(classes)} classes" if classes else "a regressor"
        raise BundleError("model", f"task {schema.task}: got {got}", "Change the task, or train another model.")
    return tuple(classes)


def _write_skops(model: Any, path: Path) -> None:
    from skops.io import dump

    try:
        dump(model, path)
    except (TypeError, ValueError, AttributeError) as error:
        remedy = "Replace the part that can't be stored (a lambda, a class of your own), or allow joblib."
        raise BundleError("model", f"skops can't store it: {error}", remedy) from error
