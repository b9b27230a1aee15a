"""What a scikit-learn model in memory takes and gives."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from tabserve.arrays import Array, Features
from tabserve.bundle.errors import BundleError
from tabserve.bundle.manifest import ClassValue, Datatype, EngineName, FeatureSpec, ModelFormat, ModelInfo
from tabserve.bundle.reference import MAX_ROWS, Columns
from tabserve.engines import skops_types
from tabserve.engines.contributions.contributor import contributor
from tabserve.engines.contributions.trees import HISTOGRAM
from tabserve.engines.estimators import answer, can_answer, presenter
from tabserve.schema.schema import Schema
from tabserve.train import codes, presentation, repeating, traces
from tabserve.train.facts import Facts
from tabserve.train.onnx import conversion
from tabserve.train.own import Rows
from tabserve.train.presentation import Truth
from tabserve.train.shape import given
from tabserve.train.steps import ELEMENTWISE, LIKELIEST, TREES, last, steps

_RETRAIN = "Train the model on the schema's features, or change the schema."
_FEW = slice(0, 8)


class SklearnModel:
    """An estimator or pipeline of scikit-learn, or of a library that follows its conventions."""

    engine: EngineName = "sklearn"
    formats: tuple[ModelFormat, ...] = ("skops", "joblib")
    datatype: Datatype = "FP64"

    def __init__(self, model: Any, facts: Facts) -> None:
        """Raises BundleError if the facts are for XGBoost's models."""
        for name in ("missing", "rounds"):
            if getattr(facts, name) is not None:
                raise BundleError(name, "is for an XGBoost Booster", "Leave it out.")
        self._model = model
        self._facts = facts

    @staticmethod
    def is_kind_of(model: Any) -> bool:
        """Whether a model is an estimator."""
        return hasattr(model, "get_params") and hasattr(model, "predict")

    def describe(
        self, info: ModelInfo, schema: Schema, features: Columns, rows: Sequence[Rows]
    ) -> tuple[ModelInfo, list[Truth]]:
        """The entry with the form of the features, classes and outputs; and the answers about the user's own table.

        Raises BundleError.
        """
        model = self._model
        verify_names(model, info.features)
        classes = _classes(model, schema)
        asked = partial(ask, model, _answers(model, schema))
        named = hasattr(model, "feature_names_in_")
        if presentation.takes_codes(model, asked, info.features, rows[0], named=named):
            info = msgspec.structs.replace(info, features=self._coded(info.features, features, rows[0], named=named))
        else:
            codes.verify_none(self._facts.codes)
        truths = presentation.truths(model, asked, info.features, rows, named=named)
        repeating.verify(model, asked, truths[0].table)
        found = presentation.find(asked, info.features, rows, truths, named=named)
        independent: tuple[EngineName, ...] = ("sklearn",) if steps(model) <= ELEMENTWISE | TREES else ()
        info = msgspec.structs.replace(
            info,
            frame=found.frame,
            features=found.features,
            range=presentation.range_of(asked, found, truths[0].columns),
            input=input_of(found.frame, found.features),
            classes=classes,
            targets=_targets(truths[0], classes),
            likeliest=type(last(model)).__name__ in LIKELIEST,
            row_independent=independent,
        )
        return msgspec.structs.replace(info, outputs=_outputs(model, schema, info, features)), truths

    def _coded(
        self, specs: Sequence[FeatureSpec], features: Columns, rows: Rows, *, named: bool
    ) -> tuple[FeatureSpec, ...]:
        """The features with their categories in the order of the numbers that the model was trained on."""

        def repeated(order: Sequence[FeatureSpec]) -> bool:
            return traces.repeated(self._model, presentation.codes(order, features, named=named))

        return codes.found(repeated, specs, self._facts.codes, features, rows.frames[0])

    def own_answers(self, info: ModelInfo, features: Features) -> dict[str, Array]:
        """The classes or values from `predict`, and the probabilities or the anomaly score if there are any."""
        table = presenter(info.features, info.frame)(features)
        asked = [name for name in ("predict", "predict_proba", "anomaly_score") if name in info.outputs]
        return ask(self._model, asked, table)

    def write(self, path: Path, form: ModelFormat) -> None:
        """Write the model as skops or joblib. Raises BundleError if the format can't hold it."""
        write(self._model, path, form)

    def onnx_graph(self, _: Path, info: ModelInfo) -> Any:
        """The model's ONNX form. Raises NotConvertedError."""
        return conversion.estimator_graph(self._model, info.features, info.frame, zipmap=bool(info.classes))


def write(estimator: Any, path: Path, form: str) -> None:
    """Write an estimator or transformer as skops or joblib. Raises BundleError if the format can't hold it."""
    if form == "joblib":
        import joblib

        joblib.dump(estimator, path)
    else:
        _write_skops(estimator, path)


def verify_names(model: Any, specs: Sequence[FeatureSpec]) -> None:
    """Refuse a model or preprocessor that was fitted on features other than the schema's. Raises BundleError."""
    names = [spec.name for spec in specs]
    fitted = getattr(model, "feature_names_in_", None)
    width = getattr(model, "n_features_in_", len(names))
    if fitted is not None and list(fitted) != names:
        expected, got = ", ".join(names), ", ".join(map(str, fitted))
        raise BundleError("model", f"expected the schema's features [{expected}], got [{got}]", _RETRAIN)
    if width != len(names):
        raise BundleError("model", f"expected the schema's {len(names)} features, got {width}", _RETRAIN)


def ask(model: Any, outputs: Sequence[str], table: Any) -> dict[str, Array]:
    """A model's answers about a table. Raises whatever the model raises."""
    return {name: answer(model, name, table) for name in outputs}


def _answers(model: Any, schema: Schema) -> list[str]:
    """The outputs that the model has methods for."""
    margin = "anomaly_score" if schema.task == "anomaly" else "margin"
    return [name for name in ("predict", "predict_proba", margin) if can_answer(model, name)]


def input_of(frame: str, specs: Sequence[FeatureSpec]) -> Literal["matrix", "columns"]:
    """`columns` if the estimator takes text, otherwise `matrix`."""
    return "columns" if frame and any(spec.is_text for spec in specs) else "matrix"


def _outputs(model: Any, schema: Schema, info: ModelInfo, features: Columns) -> tuple[str, ...]:
    found = ["predict"]
    if schema.task == "anomaly":
        found.append("anomaly_score")
    elif info.classes:
        found += [name for name in ("predict_proba",) if can_answer(model, name)]
        found += ["margin"] if _has_margin(model, info, features) else []
    background = given(info, {name: column[:MAX_ROWS] for name, column in features.items()})
    if contributor(model, presenter(info.features, info.frame), background, info.features) is not None:
        found.append("contributions")
    return tuple(found)


def _has_margin(model: Any, info: ModelInfo, features: Columns) -> bool:
    """Whether `decision_function` gives one value per row or per class; an SVC may give one per pair of classes."""
    if not hasattr(model, "decision_function"):
        return False
    some = given(info, {name: column[_FEW] for name, column in features.items()})
    shape = np.shape(model.decision_function(presenter(info.features, info.frame)(some)))
    return len(shape) == 1 if len(info.classes) == 2 else shape[1:] == (len(info.classes),)


def _classes(model: Any, schema: Schema) -> tuple[ClassValue, ...]:
    """The class values in the model's order. Raises BundleError if the model does not fit the schema's task."""
    from sklearn.utils import get_tags

    kind = get_tags(model).estimator_type
    found = _class_values(model, kind)
    fits = {"binary": len(found) == 2, "multiclass": len(found) > 2, "regression": not found, "anomaly": True}
    if (kind == "outlier_detector") != (schema.task == "anomaly") or not fits[schema.task]:
        got = _KINDS.get(kind, "a regressor") + (f" of {len(found)} classes" if kind == "classifier" else "")
        raise BundleError("model", f"task {schema.task}: got {got}", "Change the task, or train another model.")
    return found


_KINDS = {"classifier": "a classifier", "outlier_detector": "an outlier detector", "clusterer": "a clusterer",
          "density_estimator": "a mixture"}  # fmt: skip


def _class_values(model: Any, kind: str | None) -> tuple[ClassValue, ...]:
    """A classifier's own class values, an outlier detector's -1 and 1, or clusters' numbers. Raises BundleError."""
    if kind == "outlier_detector":
        return (-1, 1)
    if kind == "classifier":
        if not isinstance(model.classes_, np.ndarray) or model.classes_.ndim > 1:
            raise _several_labels()
        return tuple(model.classes_.tolist())
    if kind in ("clusterer", "density_estimator"):
        return tuple(range(_cluster_count(last(model))))
    return ()


def _cluster_count(model: Any) -> int:
    if hasattr(model, "n_components"):
        return int(model.n_components)
    if hasattr(model, "cluster_centers_"):
        return len(model.cluster_centers_)
    return int(model.labels_.max()) + 1


def _targets(truth: Truth, classes: Sequence[ClassValue]) -> int:
    """How many values the model gives per row. Raises BundleError if these are several labels."""
    predicted = truth.answers["predict"]
    if predicted.ndim == 1:
        return 1
    if classes:
        raise _several_labels()
    return int(predicted.shape[1])


def _several_labels() -> BundleError:
    return BundleError("model", "answers several labels per row", "Train and save one model for each label.")


def _write_skops(model: Any, path: Path) -> None:
    from skops.io import dump

    try:
        with _without_training(model):
            dump(model, path)
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        remedy = "Replace the part that can't be stored (a lambda, a class of your own), or allow joblib."
        raise BundleError("model", f"skops can't store it: {presentation.first_line(error)}", remedy) from error


# Histogram boosting keeps these from early stopping and does not predict with them; they refer back to the model.
_OF_TRAINING = ("_scorer", "_raw_predict")


@contextlib.contextmanager
def _without_training(model: Any) -> Iterator[None]:
    """Leave out attributes in which skops would recurse for ever."""
    boosting = [part for _, part in skops_types.parts(model) if type(part).__name__ in HISTOGRAM]
    kept = [(part, name, vars(part).pop(name)) for part in boosting for name in _OF_TRAINING if name in vars(part)]
    try:
        yield
    finally:
        for part, name, value in kept:
            setattr(part, name, value)
