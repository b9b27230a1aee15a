"""Models in files, as the libraries write them, so that the process that trained them is not needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from tabserve.bundle import formats
from tabserve.bundle.errors import BundleError
from tabserve.bundle.files import File
from tabserve.engines import lightgbm as lgbm
from tabserve.engines import xgboost as xgb
from tabserve.train.facts import Facts

# XGBoost before 3.1 wrote this into files whose names do not end in .json or .ubj.
_FORMER = (b"binf", b"bs64")
_TRIALS = {
    "XGBoost": (
        "import sys, xgboost; booster = xgboost.Booster(); "
        "booster.load_model(bytearray(open(sys.argv[1], 'rb').read())); booster.num_features()"
    ),
    "LightGBM": "import sys, lightgbm; lightgbm.Booster(model_file=sys.argv[1]).num_feature()",
}
_SECONDS = 120.0


def opened(path: Path, facts: Facts) -> tuple[Any, Facts]:
    """The model in a file, and the user's facts about it.

    A model of one of XGBoost's estimators stops at the round where the estimator would. Raises BundleError if the file
    is not a model.
    """
    try:
        head = path.read_bytes()[:4]
        found = formats.recognise(path)
    except OSError as error:
        remedy = "Give a fitted model, or the path of a file with one."
        raise BundleError(str(path), f"cannot be read: {error.strerror}", remedy) from error
    if head in _FORMER:
        remedy = "Write it again with the XGBoost that wrote it: booster.save_model('model.json')."
        raise BundleError(path.name, "is in XGBoost's old binary format, which XGBoost no longer reads", remedy)
    if found == "lightgbm":
        _try(path, "LightGBM")
        return lgbm.read(File.of(path)), facts
    if found not in ("ubj", "json"):
        got = "a pickle, which runs its author's code" if found == "joblib" else f"{found} content"
        remedy = (
            "Give a file that XGBoost (.json, .ubj) or LightGBM (.txt) wrote, or load the model yourself and pass it."
        )
        raise BundleError(path.name, f"expected a model file, got {got}", remedy)
    _try(path, "XGBoost")
    booster = xgb.read(File.of(path))
    is_api = booster.attr("scikit_learn") is not None and facts.rounds is None
    return booster, msgspec.structs.replace(facts, rounds="best") if is_api else facts


def _try(path: Path, library: str) -> None:
    """Load a file in another process, because it may crash that one (dmlc/xgboost#7903). Raises BundleError."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", _TRIALS[library], str(path)], capture_output=True, timeout=_SECONDS, check=False
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if "Error: " in line]
        reason = lines[0].partition("Error: ")[2] if lines else "it crashes the library"
        raise BundleError(path.name, f"not a model that {library} can read: {reason[:200]}", "Give another file.")
