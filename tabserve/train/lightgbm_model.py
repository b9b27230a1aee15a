"""What a LightGBM model in memory takes and gives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tabserve.arrays import Array, Features
from tabserve.bundle.errors import BundleError
from tabserve.bundle.manifest import ClassValue, Datatype, EngineName, FeatureSpec, ModelFormat, ModelInfo
from tabserve.bundle.reference import Columns
from tabserve.engines import lightgbm as lgbm
from tabserve.schema import features as schema_features
from tabserve.schema.schema import Schema
from tabserve.train import codes, presentation
from tabserve.train.facts import Facts
from tabserve.train.onnx.conversion import NotConvertedError
from tabserve.train.own import Rows
from tabserve.train.presentation import Truth

_RETRAIN = "Train the model on the schema's features, or change the schema."
_CLASSES = {"binary": "binary", "multiclass": "multiclass", "multiclassova": "multiclass"}
_RANKING = ("lambdarank", "rank_xendcg")
# The name that LightGBM gives to a column without one.
_UNNAMED = re.compile(r"Column_\d+")


class LightGBMModel:
    """An estimator of LightGBM, or a Booster."""

    engine: EngineName = "lightgbm"
    formats: tuple[ModelFormat, ...] = ("lightgbm",)
    datatype: Datatype = "FP64"

    def __init__(self, model: Any, facts: Facts) -> None:
        """Raises BundleError if the facts are for XGBoost's models."""
        for name in ("missing", "rounds"):
            if getattr(facts, name) is not None:
                raise BundleError(name, "is for an XGBoost Booster", "Leave it out.")
        self._model, self._facts = model, facts
        self._booster = getattr(model, "booster_", model)
        self._stored: list[list[Any]] = self._booster.pandas_categorical or []

    @staticmethod
    def is_kind_of(model: Any) -> bool:
        """Whether a model is LightGBM's."""
        return type(model).__module__.startswith("lightgbm.")

    def describe(
        self, info: ModelInfo, schema: Schema, features: Columns, rows: Sequence[Rows]
    ) -> tuple[ModelInfo, list[Truth]]:
        """The entry with features (categories in training order), classes and outputs; and answers on the user's table.

        Raises BundleError.
        """
        classes = self._classes(schema)
        specs = self._trained_on(info.features, features, rows[0])
        outputs = ["predict", *(["predict_proba"] if classes else []), "margin"]
        outputs += ["contributions"] if self._explains() else []
        info = msgspec.structs.replace(
            info,
            features=specs,
            classes=classes,
            likeliest=bool(classes),
            outputs=tuple(outputs),
            row_independent=("lightgbm",),
        )
        if not self._stored and any(spec.type == "category" for spec in specs):
            rows = [self._numbered(some, specs) for some in rows]
        return info, presentation.truths(self._model, partial(ask, self._model), specs, rows, named=self._named)

    def own_answers(self, info: ModelInfo, features: Features) -> dict[str, Array]:
        """The answers of the model in memory, given the features as in training."""
        return presentation.quietly(partial(ask, self._model), self._table(info.features, np.asarray(features)))

    def write(self, path: Path, _: ModelFormat) -> None:
        """Write the model as LightGBM's text, with the trees that it predicts with: up to the best iteration."""
        self._booster.save_model(path)

    def onnx_graph(self, file: Path, info: ModelInfo) -> Any:
        """Raises NotConvertedError: LightGBM itself is the only engine for its models."""
        raise NotConvertedError("LightGBM's models are not converted")

    @property
    def _named(self) -> bool:
        return not all(_UNNAMED.fullmatch(name) for name in self._booster.feature_name())

    def _explains(self) -> bool:
        """Whether the model gives contributions; with linear leaves it does not."""
        return "is_linear=1" not in self._booster.model_to_string(num_iteration=1)

    def _classes(self, schema: Schema) -> tuple[ClassValue, ...]:
        objective = lgbm.objective(self._booster)
        if objective in _RANKING:
            remedy = "Serve a classifier or a regressor; a ranker's scores decide nothing about a single record."
            raise BundleError("model", f"ranks records ({objective}), which tabserve does not serve", remedy)
        task = _CLASSES.get(objective, "regression")
        if task != schema.task:
            remedy = f"Change the schema's task to {task}, or train with an objective of that task."
            raise BundleError("model", f"task {schema.task}: LightGBM's objective {objective} is a {task}", remedy)
        if task == "regression":
            return ()
        if hasattr(self._model, "classes_"):
            return tuple(np.asarray(self._model.classes_).tolist())
        return tuple(range(max(2, self._booster.num_model_per_iteration())))

    def _trained_on(self, specs: Sequence[FeatureSpec], features: Columns, rows: Rows) -> tuple[FeatureSpec, ...]:
        """The features in the model's own order of categories. Raises BundleError."""
        self._verify_names([spec.name for spec in specs])
        if not self._stored:
            repeated = partial(self._repeats, features=features)
            return codes.found(repeated, specs, self._facts.codes, features, rows.frames[0])
        codes.verify_none(self._facts.codes)
        given = [spec for spec in specs if spec.type == "category"]
        if len(self._stored) != len(given):
            problem = f"was trained on {len(self._stored)} categories, the schema has {len(given)}"
            raise BundleError(
                "model", problem, "In training, give every category of the schema pandas' dtype `category`."
            )
        values = {spec.name: tuple(map(str, own)) for spec, own in zip(given, self._stored, strict=True)}
        return tuple(msgspec.structs.replace(spec, values=values.get(spec.name, spec.values)) for spec in specs)

    def _repeats(self, specs: Sequence[FeatureSpec], *, features: Columns) -> bool:
        """Whether the sample fills the leaves as the training data did, if the categories have this order."""
        table = self._table(specs, schema_features.matrix(features, specs, np.float64))
        leaves = np.asarray(self._booster.predict(table, pred_leaf=True)).reshape(len(table), -1)
        trees = [_leaf_counts(tree["tree_structure"]) for tree in self._booster.dump_model()["tree_info"]]
        return all(
            np.array_equal(np.bincount(leaf, minlength=len(counts)), [counts[at] for at in sorted(counts)])
            for leaf, counts in zip(leaves.T, trees, strict=True)
        )

    def _numbered(self, rows: Rows, specs: Sequence[FeatureSpec]) -> Rows:
        """The rows as the model was given them, with a number in place of each category."""
        matrix = schema_features.matrix(rows.columns, specs, np.float64)
        return msgspec.structs.replace(rows, frames=(self._table(specs, matrix),))

    def _verify_names(self, names: Sequence[str]) -> None:
        own = self._booster.feature_name()
        if len(own) != len(names):
            raise BundleError("model", f"expected the schema's {len(names)} features, got {len(own)}", _RETRAIN)
        # LightGBM stores names with _ in place of blanks.
        if self._named and own != [re.sub(r"\s", "_", name) for name in names]:
            expected, got = ", ".join(names), ", ".join(own)
            raise BundleError("model", f"expected the schema's features [{expected}], got [{got}]", _RETRAIN)

    def _table(self, specs: Sequence[FeatureSpec], matrix: Array) -> Any:
        """A matrix in the form that the model was trained on: with names and categories if it has them."""
        import pandas

        if not self._named:
            return matrix
        columns: dict[str, Any] = {spec.name: matrix[:, at] for at, spec in enumerate(specs)}
        given = [spec.name for spec in specs if spec.type == "category"]
        for name, own in zip(given, self._stored, strict=False):
            positions = np.nan_to_num(columns[name], nan=-1).astype(np.intp)
            columns[name] = pandas.Categorical.from_codes(positions, pandas.Index(own))
        return pandas.DataFrame(columns)


def ask(model: Any, table: Any) -> dict[str, Array]:
    """Classes, probabilities or values from an estimator, or the margin from a Booster. Raises what they raise."""
    if hasattr(model, "predict_proba"):
        return {"predict_proba": np.asarray(model.predict_proba(table)), "predict": np.asarray(model.predict(table))}
    if hasattr(model, "booster_"):
        return {"predict": np.asarray(model.predict(table))}
    return {"margin": np.asarray(model.predict(table, raw_score=True))}


def _leaf_counts(node: dict[str, Any]) -> dict[int, int]:
    """How many rows of the training data fell into each leaf."""
    if "left_child" in node:
        return _leaf_counts(node["left_child"]) | _leaf_counts(node["right_child"])
    return {node.get("leaf_index", 0): node.get("leaf_count", 0)}
