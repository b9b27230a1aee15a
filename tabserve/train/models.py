"""The kinds of models: what each takes and gives, and its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tabserve.arrays import Array, Features
from tabserve.bundle import agreement, libraries
from tabserve.bundle.errors import BundleError
from tabserve.bundle.manifest import Datatype, EngineName, EngineRange, FeatureSpec, ModelFormat, ModelInfo
from tabserve.bundle.reference import Columns
from tabserve.bundle.tensors import MATRIX
from tabserve.schema.schema import Schema
from tabserve.train.facts import Facts
from tabserve.train.lightgbm_model import LightGBMModel
from tabserve.train.own import Rows
from tabserve.train.presentation import Truth
from tabserve.train.sklearn_model import SklearnModel
from tabserve.train.steps import last
from tabserve.train.xgboost_model import XGBoostModel

TOLERANCE = 1e-6
_ENDINGS = {"lightgbm": "txt"}


class TrainedModel(Protocol):
    """A trained model in memory, of one library.

    engine: its own library's engine. formats: the possible file formats, the safe one first. datatype: its matrix's.
    """

    engine: EngineName
    formats: tuple[ModelFormat, ...]
    datatype: Datatype

    def describe(
        self, info: ModelInfo, schema: Schema, features: Columns, rows: Sequence[Rows]
    ) -> tuple[ModelInfo, list[Truth]]:
        """The manifest's entry, filled in; and the model's answers about the tables of `rows`.

        features: some rows in the form that it is given. Raises BundleError.
        """

    def own_answers(self, info: ModelInfo, features: Features) -> dict[str, Array]:
        """The model's answers, asked for as its training script would."""

    def write(self, path: Path, form: ModelFormat) -> None:
        """Write the model's file. Raises BundleError if the format can't hold it."""

    def onnx_graph(self, file: Path, info: ModelInfo) -> Any:
        """The model's ONNX form. file: what `write` has written. Raises NotConvertedError."""


KINDS = (XGBoostModel, LightGBMModel, SklearnModel)
"""The classes, one for each library; the first that knows a model takes it."""


def trained(model: Any, facts: Facts) -> TrainedModel:
    """Wrap a model in the class for its library, with what only the user knows about it. Raises BundleError."""
    if type(last(model)).__module__.startswith("catboost."):
        remedy = "Train it with XGBoost, LightGBM or histogram gradient boosting, which take categories as well."
        raise BundleError("model", "CatBoost's models are not served", remedy)
    for kind in KINDS:
        if kind.is_kind_of(model):
            if kind is XGBoostModel:
                libraries.verify_new_enough("xgboost")
            return kind(model, facts)
    name = f"{type(model).__module__}.{type(model).__qualname__}"
    remedy = "Give a fitted estimator or pipeline, a model of XGBoost or LightGBM, or a Booster."
    raise BundleError("model", f"expected a scikit-learn, XGBoost or LightGBM model, got {name}", remedy)


def is_fitted(model: Any) -> bool:
    """Whether an estimator is fitted; anything that can't say counts as fitted."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(model)
    except NotFittedError:
        return False
    except (TypeError, AttributeError):
        pass
    return True


def file_format(form: ModelFormat | None, model: TrainedModel, *, allow_joblib: bool) -> ModelFormat:
    """The format to save in: the library's safe one unless another is asked for. Raises BundleError."""
    if form is None:
        return model.formats[0]
    if form not in model.formats:
        expected = f"{' or '.join(model.formats)} for {model.engine}"
        raise BundleError("format", f"expected {expected}, got {form}", "Leave it out.")
    if form == "joblib" and not allow_joblib:
        remedy = "Save it as skops, or pass allow_joblib=True here and wherever it is loaded."
        raise BundleError("format", "loading a joblib file runs its author's code", remedy)
    return form


def describe(
    model: TrainedModel,
    form: ModelFormat,
    schema: Schema,
    specs: Sequence[FeatureSpec],
    features: Columns,
    rows: Sequence[Rows],
) -> tuple[ModelInfo, list[Truth]]:
    """The manifest's entry for a model, and its answers about the tables of `rows`, which every engine must repeat.

    The entry has only the native engine, and its `contributions` are yet to be proven. specs: what the model is given,
    categories in the schema's order; features: some rows of it. Raises BundleError.
    """
    info = ModelInfo(
        file=f"model.{_ENDINGS.get(form, form)}",
        format=form,
        native=model.engine,
        input="matrix",
        datatype=model.datatype,
        features=tuple(specs),
        outputs=(),
        default_outputs=(),
        engines=(EngineRange(0, model.engine),),
        tolerance=TOLERANCE,
    )
    info, truths = model.describe(info, schema, features, rows)
    agreement.verify_classes(info, schema)
    if info.input == "columns" and MATRIX in schema.feature_names:
        raise BundleError(
            "schema", f"feature `{MATRIX}`: this is what requests call a matrix", "Give the field another name."
        )
    return info, truths
