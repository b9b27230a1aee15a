"""What an XGBoost model in memory takes and gives."""

from __future__ import annotations

import json
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
from tabserve.schema import features as schema_features
from tabserve.schema.schema import Schema
from tabserve.train import codes, covers, presentation, sentinels
from tabserve.train.facts import Facts
from tabserve.train.onnx import conversion
from tabserve.train.own import Rows
from tabserve.train.presentation import Truth

_RETRAIN = "Train the model on the schema's features, or change the schema."
# For these, `predict` does not give probabilities.
_MARGINS = "binary:logitraw"
_ESCAPED = "surrogateescape"
_NO_PROBABILITY = (_MARGINS, "binary:hinge")
_EXPECTED = {
    "binary": "binary:logistic or another objective of two classes",
    "multiclass": "multi:softprob of three classes or more",
    "regression": "a regressor, or a Booster",
}


def booster(model: Any) -> Any:
    """The Booster of an XGBoost estimator, or the Booster itself."""
    return model.get_booster() if hasattr(model, "get_booster") else model


class XGBoostModel:
    """An estimator of XGBoost, or a Booster."""

    engine: EngineName = "xgboost"
    formats: tuple[ModelFormat, ...] = ("ubj", "json")
    datatype: Datatype = "FP32"

    def __init__(self, model: Any, facts: Facts) -> None:
        """Raises BundleError if the facts are for a Booster and the model is not one."""
        self._model = _of_rounds(model, facts)
        self._facts = facts
        self._stored = _stored_categories(booster(self._model))
        own = getattr(model, "missing", None)
        if hasattr(model, "get_booster") and own is not None and np.isfinite(own):
            self._facts = msgspec.structs.replace(facts, missing=float(own))

    @staticmethod
    def is_kind_of(model: Any) -> bool:
        """Whether a model is XGBoost's."""
        return type(model).__module__.startswith("xgboost.")

    def describe(
        self, info: ModelInfo, schema: Schema, features: Columns, rows: Sequence[Rows]
    ) -> tuple[ModelInfo, list[Truth]]:
        """The entry with features and categories as in training, classes and outputs; and answers on the user's table.

        Raises BundleError.
        """
        trained = booster(self._model)
        classes, targets = _classes(self._model, schema)
        likely = bool(classes) and xgb.objective(trained) not in _NO_PROBABILITY
        outputs = ("predict", *(["predict_proba"] if likely else []), "margin", "contributions")
        independent: tuple[EngineName, ...] = ("xgboost",) if xgb.kind(trained) != "gblinear" else ()
        specs, markers = self._trained_on(info.features, features, rows)
        info = msgspec.structs.replace(
            info,
            features=specs,
            classes=classes,
            likeliest=likely,
            targets=targets,
            outputs=outputs,
            row_independent=independent,
            missing=markers,
        )
        if self._coded(specs):
            rows = [self._numbered(some, specs) for some in rows]
        ask_it = partial(ask, self._model, markers=markers)
        return info, presentation.truths(self._model, ask_it, specs, rows, named=trained.feature_names is not None)

    def own_answers(self, info: ModelInfo, features: Features) -> dict[str, Array]:
        """The answers of the model in memory, given the features as in training."""
        return ask(self._model, self._table(info.features, blanked(np.asarray(features), info.missing)))

    def write(self, path: Path, _: ModelFormat) -> None:
        """Write the model as UBJ or JSON, according to the path's ending."""
        booster(self._model).save_model(path)

    def onnx_graph(self, file: Path, info: ModelInfo) -> Any:
        """The model's ONNX form, made from its file. Raises NotConvertedError."""
        return conversion.booster_graph(file, info)

    def _trained_on(
        self, specs: Sequence[FeatureSpec], features: Columns, rows: Sequence[Rows]
    ) -> tuple[tuple[FeatureSpec, ...], tuple[float, ...]]:
        """The features in the model's order of categories, and the numbers that mean a missing value to it.

        What neither the model nor the user's facts hold, the trees' covers show if the sample is the training data.
        """
        trained = booster(self._model)
        _verify(trained, specs)
        for at, (texts, _) in self._stored.items():
            _verify_whole(texts, specs[at])
        stored = tuple(
            msgspec.structs.replace(spec, values=self._stored[at][0]) if at in self._stored else spec
            for at, spec in enumerate(specs)
        )
        known_by_text = {specs[at].name for at in self._stored}
        codes.verify_none({name: of for name, of in self._facts.codes.items() if name in known_by_text})
        specs = codes.told(stored, self._facts.codes)
        coded = [spec.name for spec in self._coded(specs) if spec.name not in self._facts.codes]
        sparse = any(hasattr(frame, "toarray") for frame in rows[0].frames)
        known = (*self._facts.markers, *((0.0,) if sparse else ()))
        orders = codes.orders(specs, coded, features, rows[0].frames[0]) if coded else [specs]
        others = [] if self._told_missing or known else sentinels.candidates(specs, features)
        found = [(order, marker) for order in orders for marker in (known, *((other,) for other in others))]
        if len(found) == 1 and not coded:
            return found[0]
        gaps = [self._gap(order, marker, features) for order, marker in found]
        exact = [one for one, gap in zip(found, gaps, strict=True) if gap is not None and gap <= covers.EXACT]
        if exact and self._alike(exact, features):
            return exact[0]
        if coded:
            raise codes.unknown(coded)
        sentinels.verify(specs, features, others, gaps)
        return found[0]

    @property
    def _told_missing(self) -> bool:
        """Whether the marker of a missing value in training is known; a Booster does not store it."""
        return self._facts.missing is not None or hasattr(self._model, "get_booster")

    def _coded(self, specs: Sequence[FeatureSpec]) -> list[FeatureSpec]:
        """The categories that the model knows only by the user's own numbers."""
        return [spec for at, spec in enumerate(specs) if spec.type == "category" and at not in self._stored]

    def _numbered(self, rows: Rows, specs: Sequence[FeatureSpec]) -> Rows:
        """The rows as the model was given them, with a number in place of a category that it knows by number."""
        matrix = schema_features.matrix(rows.columns, specs, np.float32)
        return msgspec.structs.replace(rows, frames=(self._table(specs, matrix),))

    def _gap(self, specs: Sequence[FeatureSpec], markers: Sequence[float], features: Columns) -> float | None:
        return covers.gap(booster(self._model), self._matrix(specs, markers, features))

    def _matrix(self, specs: Sequence[FeatureSpec], markers: Sequence[float], features: Columns) -> Any:
        matrix = blanked(schema_features.matrix(features, specs, np.float32), markers)
        return _dmatrix(booster(self._model), self._table(specs, matrix))

    def _alike(self, found: Sequence[tuple[Sequence[FeatureSpec], Sequence[float]]], features: Columns) -> bool:
        """Whether the model gives the sample the same answers in all these ways."""
        margins = [booster(self._model).predict(self._matrix(*way, features), output_margin=True) for way in found]
        return all(np.allclose(margins[0], margin, rtol=1e-5, atol=1e-5) for margin in margins[1:])

    def _table(self, specs: Sequence[FeatureSpec], matrix: Array) -> Any:
        """A matrix in the form that the model was trained on: with names and categories if it has them."""
        import pandas

        if booster(self._model).feature_names is None:
            return matrix
        columns: dict[str, Any] = {spec.name: matrix[:, at] for at, spec in enumerate(specs)}
        for at, (_, own) in self._stored.items():
            positions = np.nan_to_num(matrix[:, at], nan=-1).astype(np.intp)
            columns[specs[at].name] = pandas.Categorical.from_codes(positions, pandas.Index(own))
        return pandas.DataFrame(columns)


def ask(model: Any, table: Any, markers: Sequence[float] = ()) -> dict[str, Array]:
    """Probabilities or values from an estimator, or the margin from a Booster. Raises whatever they raise.

    markers: the number that means a missing value to a Booster.
    """
    if hasattr(model, "predict_proba"):
        return {"predict_proba": np.asarray(model.predict_proba(table)), "predict": np.asarray(model.predict(table))}
    if hasattr(model, "get_booster"):
        return {"predict": np.asarray(model.predict(table))}
    rounds = {} if xgb.kind(model) == "gblinear" else {"iteration_range": xgb.iterations(model)}
    matrix = _dmatrix(model, table, next(iter(markers), np.nan))
    return {"margin": np.asarray(model.predict(matrix, output_margin=True, **rounds))}


def _dmatrix(trained: Any, table: Any, missing: float = np.nan) -> Any:
    """A table as the DMatrix that a Booster takes; a DataFrame's own category types are kept."""
    import xgboost

    own = hasattr(table, "dtypes") and any(dtype == "category" for dtype in table.dtypes)
    types = None if own else trained.feature_types
    return xgboost.DMatrix(table, missing=missing, feature_types=types, enable_categorical=True)


def _of_rounds(model: Any, facts: Facts) -> Any:
    """The model; a Booster is cut to the rounds to predict with: all, as in its own `predict`, or as given to `save`.

    Raises BundleError.
    """
    if hasattr(model, "get_booster"):
        for name in ("missing", "rounds"):
            if getattr(facts, name) is not None:
                problem = "is for a Booster; an estimator of XGBoost knows its own"
                raise BundleError(name, problem, "Leave it out, or save `model.get_booster()`.")
        return model
    if xgb.kind(model) == "gblinear":
        return model
    best, count = xgb.iterations(model)[1], model.num_boosted_rounds()
    rounds = (best or count) if facts.rounds == "best" else count if facts.rounds is None else facts.rounds
    if not 1 <= rounds <= count:
        raise BundleError("rounds", f"expected 1 to {count}, got {rounds}", "Give as many as the Booster has.")
    stopped = f", the best of them {best}" if 0 < best < count else ""
    if stopped or facts.rounds not in (None, "best"):
        print(f"{rounds} of {count} boosting rounds are served{stopped}.")
    chosen = model.copy()
    chosen.set_attr(best_iteration=None if rounds == count else str(rounds - 1))
    return chosen


def _verify(trained: Any, specs: Sequence[FeatureSpec]) -> None:
    """Refuse a model whose features are not the schema's. Raises BundleError."""
    names = [spec.name for spec in specs]
    if trained.num_features() != len(specs):
        raise BundleError(
            "model", f"expected the schema's {len(specs)} features, got {trained.num_features()}", _RETRAIN
        )
    if trained.feature_names is not None and list(trained.feature_names) != names:
        expected, got = ", ".join(names), ", ".join(trained.feature_names)
        raise BundleError("model", f"expected the schema's features [{expected}], got [{got}]", _RETRAIN)
    types = trained.feature_types or ["float"] * len(specs)
    for spec in (spec for spec, kind in zip(specs, types, strict=True) if kind == "c" and spec.type != "category"):
        remedy = f"Declare `{spec.name}` as a category with its values as text, or train the model on a number."
        raise BundleError("model", f"feature `{spec.name}` is a category, the schema has a number", remedy)


def _stored_categories(trained: Any) -> dict[int, tuple[tuple[str, ...], tuple[Any, ...]]]:
    """Categories by feature, as text and as the model has them, in the order of their codes.

    XGBoost 3.1 and later store the categories of a DataFrame.
    """
    if "c" not in (trained.feature_types or ()):
        return {}
    trees = json.loads(trained.save_raw("json"))["learner"]["gradient_booster"]  # with NaN, which msgspec does not read
    stored = trees.get("gbtree", trees)["model"].get("cats", {})
    own = {at: _values(entry) for at, entry in enumerate(stored.get("enc", [])) if entry["values"]}
    return {at: (tuple(map(str, values)), values) for at, values in own.items()}


def _values(entry: dict[str, Any]) -> tuple[Any, ...]:
    """One feature's categories, decoded from numbers, or from the joined bytes of texts and where each begins."""
    if "offsets" not in entry:
        return tuple(entry["values"])
    data = bytes(byte % 256 for byte in entry["values"])
    return tuple(data[start:end].decode(errors=_ESCAPED) for start, end in pairwise(entry["offsets"]))


def _verify_whole(texts: Sequence[str], spec: FeatureSpec) -> None:
    """Refuse categories that XGBoost before 3.3 damaged: it stored positions of characters in place of bytes.

    Raises BundleError.
    """
    lost = any(not value.isascii() and value not in texts for value in spec.values)
    foreign = any(text not in spec.values for text in texts)
    if (lost and foreign) or any(text != text.encode(errors="ignore").decode() for text in texts):
        problem = f"the categories of `{spec.name}` are not ASCII, and XGBoost before 3.3 damaged them in storing"
        remedy = "Train it with XGBoost 3.3 or later (Python 3.12 or later), or name these categories in ASCII."
        raise BundleError("model", problem, remedy)


def _classes(model: Any, schema: Schema) -> tuple[tuple[int, ...], int]:
    """The class values, none for a regression, and how many values a regression gives per row. Raises BundleError."""
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
        raise BundleError(
            "model", f"{type(model).__name__} with {objective} answers numbers and has no classes", remedy
        )
    if task in _EXPECTED and groups > 1 and not objective.startswith("multi:"):
        raise BundleError("model", "answers several labels per row", "Train and save one model for each label.")
    expected = _EXPECTED.get(task, "an outlier detector of scikit-learn")
    kind = f"{type(model).__name__} with {objective}"
    remedy = "Change the schema's task, or train another model."
    raise BundleError("model", f"task {task}: expected {expected}, got {kind}", remedy)


def _groups(trained: Any) -> int:
    """How many values the model gives per row: one, one per class, or one per target."""
    import xgboost

    # Not inplace_predict, which gblinear does not support.
    matrix = xgboost.DMatrix(
        np.zeros((1, trained.num_features()), np.float32),
        feature_names=trained.feature_names,
        feature_types=trained.feature_types,
        enable_categorical=True,
    )
    return int(trained.predict(matrix, output_margin=True, strict_shape=True).shape[1])
