"""Read models as MLflow writes them: a folder with an `MLmodel` file; mlflow itself is not needed.

Source: https://mlflow.org/docs/latest/ml/model/ (storage format, flavours, signature).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tabserve.bundle import formats
from tabserve.bundle.errors import BundleError, UntrustedError
from tabserve.bundle.files import File
from tabserve.engines import estimators
from tabserve.engines import lightgbm as lgbm
from tabserve.engines import xgboost as xgb

MLMODEL = "MLmodel"
_FLAVOURS = ("xgboost", "lightgbm", "sklearn")
_AGAIN = "Log the model again, or give the model itself."


def is_folder(model: Any) -> bool:
    """Whether a model is the path of an MLflow model."""
    return isinstance(model, str | os.PathLike) and (Path(model) / MLMODEL).is_file()


def model_of(folder: str | os.PathLike[str], *, allow_joblib: bool, trusted: Sequence[str] = ()) -> Any:
    """The model in an MLflow folder with the flavour sklearn, xgboost or lightgbm.

    allow_joblib: also read a pickle, which runs its author's code. trusted: types in a skops file to load besides the
    known safe ones. Raises BundleError.
    """
    path = Path(folder)
    name, flavour = _flavour(path)
    file = path / str(flavour.get("data") or flavour.get("pickled_model") or "")
    if not file.is_file() or path.resolve() not in file.resolve().parents:
        raise BundleError(MLMODEL, f"{name}: its file {file.name!r} is not in the folder", _AGAIN)
    found = formats.recognise(file)
    if found == "joblib" and not allow_joblib:
        remedy = "Pass allow_joblib=True if you trust its author; the bundle itself is then saved without a pickle."
        raise BundleError(file.name, "is a pickle, and reading it runs its author's code", remedy)
    try:
        if found in ("joblib", "skops"):
            return estimators.read(File.of(file), found, trusted)
        return lgbm.read(File.of(file)) if found == "lightgbm" else _xgboost(file, str(flavour.get("model_class", "")))
    except UntrustedError:
        raise
    except BundleError as error:
        raise BundleError(error.file, error.problem, _AGAIN) from error


def signature(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The columns in a model's signature, each with `name`, `type` and `required`.

    Raises BundleError if there is no signature, or one of tensors.
    """
    inputs = (_contents(Path(folder)).get("signature") or {}).get("inputs")
    columns = json.loads(inputs) if inputs else []
    if not columns or not all("name" in column for column in columns):
        remedy = "Log the model with signature=infer_signature(records, predictions), the records a DataFrame."
        raise BundleError(MLMODEL, "its signature names no columns", remedy)
    return [{"required": True, **column} for column in columns]


def outputs(folder: str | os.PathLike[str]) -> list[str]:
    """The types of the model's answers, according to the signature."""
    found = (_contents(Path(folder)).get("signature") or {}).get("outputs")
    answers = json.loads(found) if found else []
    return [str(each.get("tensor-spec", {}).get("dtype", each.get("type"))) for each in answers]


def _flavour(folder: Path) -> tuple[str, dict[str, Any]]:
    flavours = _contents(folder).get("flavors") or {}
    for name in _FLAVOURS:
        if name in flavours:
            return name, flavours[name]
    known = ", ".join(sorted(set(flavours) - {"python_function"})) or "python_function alone"
    raise BundleError(
        MLMODEL, f"expected a flavour of {', '.join(_FLAVOURS)}, got {known}", "Give the model itself, if it is one."
    )


def _contents(folder: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load((folder / MLMODEL).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BundleError(MLMODEL, f"cannot be read: {str(error).splitlines()[0]}", _AGAIN) from error
    if not isinstance(found, dict):
        raise BundleError(MLMODEL, "expected keys and values", _AGAIN)
    return found


def _xgboost(file: Path, model_class: str) -> Any:
    """The XGBoost estimator that the folder names, or else the Booster."""
    booster = xgb.read(File.of(file))
    if not model_class.startswith("xgboost.sklearn."):
        return booster
    import xgboost

    model = getattr(xgboost, model_class.rpartition(".")[2], xgboost.XGBModel)()
    model.load_model(file)
    return model
