"""What a trained model in memory is, takes and gives; and its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from tabserve.arrays import Array, Features
from tabserve.bundle.errors import BundleError
from tabserve.bundle.manifest import EngineName, EngineRange, FeatureSpec, ModelFormat, ModelInfo
from tabserve.bundle.reference import Columns
from tabserve.schema.schema import Schema
from tabserve.train import sklearn_model, xgboost_model
from tabserve.train.own import Rows
from tabserve.train.presentation import Truth

TOLERANCE = 1e-6


def native(model: Any) -> EngineName:
    """The engine of a model's own library. Raises BundleError."""
    if type(model).__module__.startswith("xgboost."):
        return "xgboost"
    if hasattr(model, "get_params") and hasattr(model, "predict"):
        return "sklearn"
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    remedy = "Give a fitted estimator or pipeline, an XGBoost model, or a Booster."
    raise BundleError("model", f"expected a scikit-learn or XGBoost model, got {kind}", remedy)


def file_format(form: ModelFormat | None, engine: EngineName, *, allow_joblib: bool) -> ModelFormat:
    """The format to save in, the safe one of the library unless another is asked for. Raises BundleError."""
    if form is None:
        return "ubj" if engine == "xgboost" else "skops"
    fitting = ("ubj", "json") if engine == "xgboost" else ("skops", "joblib")
    if form not in get_args(ModelFormat) or form not in fitting:
        raise BundleError("format", f"expected {' or '.join(fitting)} for {engine}, got {form}", "Leave it out.")
    if form == "joblib" and not allow_joblib:
        remedy = "Save it as skops, or pass allow_joblib=True here and wherever it is loaded."
        raise BundleError("format", "a joblib file runs code when it is loaded", remedy)
    return form


def write(model: Any, path: Path, form: str) -> None:
    """Write a model, or a preprocessor, in a format. Raises BundleError where the format can't hold it."""
    if form in ("ubj", "json"):
        xgboost_model.booster(model).save_model(path)
    elif form == "joblib":
        import joblib

        joblib.dump(model, path)
    else:
        _write_skops(model, path)


def describe(
    model: Any,
    engine: EngineName,
    form: ModelFormat,
    schema: Schema,
    specs: Sequence[FeatureSpec],
    features: Columns,
    rows: Sequence[Rows],
) -> tuple[ModelInfo, list[Truth]]:
    """The manifest's entry for a model, with its native engine alone; `contributions` are yet to be proven.

    And what the model in memory answers about the tables of `rows`, which every engine must repeat. specs: what it is
    given, categories in the schema's order; features: some rows of it. Raises BundleError.
    """
    info = ModelInfo(
        file=f"model.{form}",
        format=form,
        native=engine,
        input="matrix",
        datatype="FP32" if engine == "xgboost" else "FP64",
        features=tuple(specs),
        outputs=(),
        default_outputs=(),
        engines=(EngineRange(0, engine),),
        tolerance=TOLERANCE,
    )
    if engine == "xgboost":
        return xgboost_model.describe(model, info, schema, rows)
    return sklearn_model.describe(model, info, schema, features, rows)


def own_answers(model: Any, info: ModelInfo, features: Features) -> dict[str, Array]:
    """What the model in memory answers, asked as its training script would ask it."""
    if info.native == "xgboost":
        return xgboost_model.own_answers(model, info, features)
    return sklearn_model.own_answers(model, info, features)


def _write_skops(model: Any, path: Path) -> None:
    from skops.io import dump

    try:
        dump(model, path)
    except (TypeError, ValueError, AttributeError) as error:
        remedy = "Replace the part that can't be stored (a lambda, a class of your own), or allow joblib."
        raise BundleError("model", f"skops can't store it: {error}", remedy) from error
