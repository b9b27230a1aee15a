"""What an XGBoost model in memory takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tabserve.arrays import Array, Features, blanked
from tabserve.bundle.errors import BundleError
from tabserve.bundle.manifest import Datatype, EngineName, FeatureSpec, ModelFormat, ModelInfo
from tabserve.bundle.reference import Columns
from tabserve.engines import xgboost as xgb
from tabserve.engines.estimators import presenter
from tabserve.schema.schema import Schema
from tabserve.train import presentation
from tabserve.train.onnx import conversion
from tabserve.train.own import Rows
from tabserve.train.presentation import Truth

_RETRAIN = "Train the model on the schema's features, or change the schema."
# What predict gives for these is no probability.
_MARGINS = "binary:logitraw"
_NO_PROBABILITY = (_MARGINS, "binary:hinge")
_EXPECTED = {
    "binary": "binary:logistic or another objective of two classes",
    "multiclass": "multi:softprob of three classes or more",
    "regression": "a regressor, or a Booster",
}


def booster(model: Any) -> Any:
    """The Booster of a model of XGBoost's scikit-learn API, or the Booster itself."""
    return model.get_booster() if hasattr(model, "get_booster") else model


class XGBoostModel:
    """A model of XGBoost's scikit-learn API, or a Booster."""

    engine: EngineName = "xgboost"
    formats: tuple[ModelFormat, ...] = ("ubj", "json")
    datatype: Datatype = "FP32"

    def __init__(self, model: Any) -> None:
        self._model = model

    @staticmethod
    def is_kind_of(model: Any) -> bool:
        """Whether a model is XGBoost's."""
        return type(model).__module__.startswith("xgboost.")

    def describe(
        self, info: ModelInfo, schema: Schema, _: Columns, rows: Sequence[Rows]
    ) -> tuple[ModelInfo, list[Truth]]:
        """Features in the order and with the categories it was trained on, classes and outputs.

        And what it answers about the user's own table. Raises BundleError.
        """
        trained = booster(self._model)
        classes, targets = _classes(self._model, schema)
        likely = bool(classes) and xgb.objective(trained) not in _NO_PROBABILITY
        outputs = ("predict", *(["predict_proba"] if likely else []), "margin", "contributions")
        features, notes = _features(trained, info.features)
        independent: tuple[EngineName, ...] = ("xgboost",) if xgb.kind(trained) != "gblinear" else ()
        info = msgspec.structs.replace(
            info,
            features=features,
            classes=classes,
            likeliest=likely,
            targets=targets,
            outputs=outputs,
            row_independent=independent,
            notes=notes,
            missing=_missing(self._model, rows),
        )
        named = trained.feature_names is not None
        return info, presentation.truths(self._model, partial(ask, self._model), features, rows, named=named)

    def own_answers(self, info: ModelInfo, features: Features) -> dict[str, Array]:
        """What the model in memory answers, of the features as it was trained on them."""
        known = blanked(np.asarray(features), info.missing)
        return ask(self._model, _table(booster(self._model), info.features, known))

    def write(self, path: Path, _: ModelFormat) -> None:
        """Write it as UBJ or JSON, as the path's ending says."""
        booster(self._model).save_model(path)

    def onnx_graph(self, file: Path, info: ModelInfo) -> Any:
        """Its ONNX form, made of its file. Raises NotConvertedError."""
        return conversion.booster_graph(file, info)


def ask(model: Any, table: Any) -> dict[str, Array]:
    """Probabilities or values of the scikit-learn API, or the margin of a Booster. Raises whatever it raises."""
    if hasattr(model, "predict_proba"):
        return {"predict_proba": np.asarray(model.predict_proba(table)), "predict": np.asarray(model.predict(table))}
    if hasattr(model, "get_booster"):
        return {"predict": np.asarray(model.predict(table))}
    import xgboost

    types = None if hasattr(table, "columns") else model.feature_types
    matrix = xgboost.DMatrix(table, feature_types=types, enable_categorical=True)
    rounds = {} if xgb.kind(model) == "gblinear" else {"iteration_range": xgb.iterations(model)}
    return {"margin": np.asarray(model.predict(matrix, output_margin=True, **rounds))}


def _missing(model: Any, rows: Sequence[Rows]) -> tuple[float, ...]:
    """The numbers that mean a missing value to the model beside NaN.

    What a sparse matrix leaves out is missing to XGBoost; served, it is 0.
    """
    marker = getattr(model, "missing", None)
    markers = () if marker is None or not np.isfinite(marker) else (float(marker),)
    sparse = any(hasattr(frame, "toarray") for frame in rows[0].frames)
    return (*markers, *((0.0,) if sparse else ()))


def _table(trained: Any, specs: Sequence[FeatureSpec], features: Features) -> Any:
    """The features as the model was trained on them: by name where it has names, with categories where it has them."""
    if trained.feature_names is None or not isinstance(features, np.ndarray):
        return features
    columns: dict[str, Array] = {spec.name: features[:, at] for at, spec in enumerate(specs)}
    for spec in _categorical(trained, specs):
        values = np.array([*spec.values, None], object)
        codes = np.nan_to_num(columns[spec.name], nan=len(spec.values)).astype(np.intp)
        columns[spec.name] = values[codes]
    categorical = {spec.name for spec in _categorical(trained, specs)}
    shown = [spec if spec.name in categorical else FeatureSpec(spec.name, "number") for spec in specs]
    return presenter(shown, "category")(columns)


def _categorical(trained: Any, specs: Sequence[FeatureSpec]) -> list[FeatureSpec]:
    types = trained.feature_types or ["float"] * len(specs)
    return [spec for spec, kind in zip(specs, types, strict=True) if kind == "c"]


def _features(trained: Any, specs: Sequence[FeatureSpec]) -> tuple[tuple[FeatureSpec, ...], tuple[str, ...]]:
    names = [spec.name for spec in specs]
    if trained.num_features() != len(specs):
        raise BundleError(
            "model", f"expected the schema's {len(specs)} features, got {trained.num_features()}", _RETRAIN
        )
    if trained.feature_names is not None and list(trained.feature_names) != names:
        expected, got = ", ".join(names), ", ".join(trained.feature_names)
        raise BundleError("model", f"expected the schema's features [{expected}], got [{got}]", _RETRAIN)
    stored, categorical = _stored_categories(trained), _categorical(trained, specs)
    for spec in categorical:
        if spec.type != "category":
            raise BundleError("model", f"feature `{spec.name}` is a category, the schema has a number", _RETRAIN)
    notes = tuple(
        f"`{spec.name}` goes to the model as a number, its position in the schema's values"
        for spec in specs
        if spec.type == "category" and spec not in categorical
    )
    ordered = (
        msgspec.structs.replace(spec, values=stored[at]) if stored.get(at) and spec in categorical else spec
        for at, spec in enumerate(specs)
    )
    return tuple(ordered), notes


def _stored_categories(trained: Any) -> dict[int, tuple[str, ...]]:
    """Categories by feature, in the order of their codes, as XGBoost 3.1 and later stores those of a DataFrame."""
    if "c" not in (trained.feature_types or ()):
        return {}
    trees = msgspec.json.decode(trained.save_raw("json"))["learner"]["gradient_booster"]
    stored = trees.get("gbtree", trees)["model"].get("cats", {})
    return {at: _texts(entry) for at, entry in enumerate(stored.get("enc", []))}


def _texts(entry: dict[str, Any]) -> tuple[str, ...]:
    """One feature's categories: their bytes one after the other, and where each begins."""
    if "offsets" not in entry:
        raise BundleError("model", "was trained on categories that are numbers", "Train on text, `astype(str)`.")
    data = bytes(byte % 256 for byte in entry["values"])
    starts = entry["offsets"]
    return tuple(data[start:end].decode() for start, end in pairwise(starts))


def _classes(model: Any, schema: Schema) -> tuple[tuple[int, ...], int]:
    """The class values, none for a regression, and how many values that gives a row. Raises BundleError."""
    objective, groups, task = xgb.objective(booster(model)), _groups(booster(model)), schema.task
    is_booster = model is booster(model)
    classifies = hasattr(model, "predict_proba") or (is_booster and objective != _MARGINS)
    if task == "regression" and not objective.startswith("multi:") and not hasattr(model, "predict_proba"):
        return (), groups
    if task == "multiclass" and objective.startswith("multi:") and groups > 2:
        return tuple(range(groups)), 1
    if task == "binary" and objective.startswith(("binary:", "reg:logistic")) and groups == 1:
        if classifies:
            return (0, 1), 1
        remedy = "Train an XGBClassifier, or set `task: regression`."
        raise BundleError("model", f"{type(model).__name__} of {objective} answers numbers and has no classes", remedy)
    if task in _EXPECTED and groups > 1 and not objective.startswith("multi:"):
        raise BundleError("model", "answers several labels a row", "Train and save one model for each label.")
    expected = _EXPECTED.get(task, "an outlier detector of scikit-learn")
    kind = f"{type(model).__name__} of {objective}"
    remedy = "Change the schema's task, or train another model."
    raise BundleError("model", f"task {task}: expected {expected}, got {kind}", remedy)


def _groups(trained: Any) -> int:
    """How many values it answers a row: one, one for each class, or one for each target."""
    import xgboost

    # Not inplace_predict, which gblinear lacks.
    matrix = xgboost.DMatrix(
        np.zeros((1, trained.num_features()), np.float32),
        feature_names=trained.feature_names,
        feature_types=trained.feature_types,
        enable_categorical=True,
    )
    return int(trained.predict(matrix, output_margin=True, strict_shape=True).shape[1])
