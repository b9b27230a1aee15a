"""XGBoost's models in oneDAL. Tests that run it need the extra `onedal`: `make long-onedal`."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from xgboost import XGBClassifier, XGBRegressor

import tabserve.bundle
from tabserve import engines, extras
from tabserve.arrays import take
from tabserve.bundle import Bundle, BundleError
from tabserve.engines import parity
from tabserve.scoring import Scorer
from tests.unit.bundles import records, resealed, saved

installed = find_spec("daal4py") is not None
onedal = pytest.mark.skipif(not installed, reason="the extra onedal is not installed; make long-onedal installs it")
absent = pytest.mark.skipif(installed, reason="the extra onedal is installed")
FIELDS = ("amount", "income", "age")
VALUES = ("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:squaredlogerror")
BANDS = "  decision: {score: fraud, bands: [{from: 0.5, label: stop}, {from: 0, label: go}]}\n  reasons: {top: 1}\n"


def refusal(model: Any, folder: Path, task: str = "binary", **options: Any) -> str:
    with pytest.raises(BundleError) as refused:
        saved(model, folder, task, engine="onedal", **options)
    return str(refused.value)


def made_for_onedal(bundle: Bundle, versions: dict[str, str]) -> Bundle:
    """The bundle with the plan that it has when it is saved for this engine, and further libraries' versions."""

    def change(contents: dict[str, Any]) -> None:
        contents["model"]["engines"] = [{"engine": "onedal", "from_rows": 0}]
        contents["libraries"] |= versions

    resealed(bundle.path, change)
    return tabserve.bundle.load(bundle.path)


@absent
def test_without_the_extra_a_save_says_how_to_install_it(tmp_path: Path) -> None:
    assert refusal(XGBClassifier(n_estimators=5), tmp_path) == (
        f"onedal: daal4py is not installed. {extras.how('onedal')}"
    )


@absent
def test_without_the_extra_the_native_engine_serves_and_says_so(tmp_path: Path) -> None:
    bundle = saved(XGBClassifier(n_estimators=5), tmp_path, engine="xgboost")
    engine_set = engines.load(made_for_onedal(bundle, {"scikit-learn-intelex": "2026.2.0"}))
    assert engine_set.names == ("xgboost",)
    assert engine_set.select(1, ["predict_proba"]).name == "xgboost"
    assert engine_set.dropped == [
        "onedal: not used: bundle.json: needs scikit-learn-intelex 2026.2.0, which is not installed. "
        "Install scikit-learn-intelex."
    ]


def test_only_models_of_xgboost_are_for_onedal(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    expected = "engine: expected sklearn or onnxruntime, got onedal. Leave the engine out."
    assert refusal(LogisticRegression(), tmp_path) == expected


@onedal
@pytest.mark.parametrize(
    ("model", "task"),
    [
        (XGBClassifier(n_estimators=40, max_depth=4), "binary"),
        (XGBClassifier(n_estimators=10, num_parallel_tree=3, subsample=0.5), "binary"),
        (XGBClassifier(n_estimators=20, max_depth=3), "multiclass"),
        (XGBClassifier(n_estimators=1, max_depth=1), "multiclass"),
        *((XGBRegressor(n_estimators=30, max_depth=4, objective=name), "regression") for name in VALUES),
    ],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_answers_are_within_the_tolerance_of_xgboost_s(model: Any, task: str, threads: int, tmp_path: Path) -> None:
    bundle = saved(model, tmp_path, task, fields=FIELDS, engine="onedal")
    info = bundle.manifest.model
    assert [(part.from_rows, part.engine) for part in info.engines] == [(0, "onedal")]
    assert [(one.engine, one.max_difference <= info.tolerance) for one in info.agreement] == [("onedal", True)]
    assert (info.onnx, info.row_independent) == (None, ("xgboost",))
    engine_set = engines.load(bundle, threads=threads)
    assert engine_set.dropped == []
    native, engine = engines.load_native(bundle, threads), engine_set.select(1, list(info.default_outputs))
    assert (engine.name, engine.row_independent) == ("onedal", False)
    rows = around_thresholds(np.asarray(bundle.reference.features))
    names = sorted(engine.outputs)
    for size in (1, 2, 64, 257, len(rows)):
        some = take(rows, slice(0, size))
        gaps = parity.differences(engine.run(some, names), native.run(some, names))
        assert max(gaps.values()) <= info.tolerance


def around_thresholds(features: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The rows, their nearest neighbours on both sides, the same without one feature each, and the largest numbers."""
    largest = np.finfo(np.float32).max
    moved = [np.nextafter(features, np.float32(side)) for side in (-np.inf, np.inf)]
    blank = features.copy()
    blank[np.arange(len(blank)), np.arange(len(blank)) % features.shape[1]] = np.nan
    ends = np.array([[-largest], [largest], [0], [-0.0], [np.nan]], np.float32).repeat(features.shape[1], axis=1)
    return np.concatenate([features, *moved, blank, ends])


@onedal
def test_early_stopping_counts_in_onedal(tmp_path: Path) -> None:
    class Stopped(XGBClassifier):  # type: ignore[misc]
        def fit(self, features: Any, target: Any) -> Any:
            return super().fit(features, target, eval_set=[(features[:100], 1 - target[:100])], verbose=False)

    Stopped.__module__ = "xgboost.sklearn"
    model = Stopped(n_estimators=20, early_stopping_rounds=3, num_parallel_tree=2, subsample=0.7)
    bundle = saved(model, tmp_path, engine="onedal")
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    assert engines.load(bundle).dropped == []


@onedal
@pytest.mark.parametrize(
    ("model", "task", "problem"),
    [
        (XGBRegressor(n_estimators=2, objective="reg:gamma"), "regression", "gbtree with reg:gamma is not converted"),
        (
            XGBClassifier(n_estimators=2, objective="binary:hinge"),
            "binary",
            "gbtree with binary:hinge is not converted",
        ),
        (XGBRegressor(n_estimators=2, booster="gblinear"), "regression", "gblinear with reg:squarederror is not"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_is_not_proven_is_refused(model: Any, task: str, problem: str, tmp_path: Path) -> None:
    text = refusal(model, tmp_path, task)
    assert problem in text
    assert text.endswith("Save it without this engine.")
    assert saved(model, tmp_path, task).manifest.model.native == "xgboost"


@onedal
def test_categorical_splits_are_refused(tmp_path: Path) -> None:
    model = XGBClassifier(n_estimators=5, enable_categorical=True)
    assert "oneDAL's trees have no categorical splits" in refusal(model, tmp_path, fields=("amount", "country"))


@onedal
def test_a_model_that_is_not_converted_is_dropped(tmp_path: Path) -> None:
    bundle = saved(XGBRegressor(n_estimators=5, objective="count:poisson"), tmp_path, "regression", engine="xgboost")
    engine_set = engines.load(made_for_onedal(bundle, {}))
    assert engine_set.names == ("xgboost",)
    assert "onedal: not used: model.ubj: gbtree with count:poisson is not converted" in engine_set.dropped[0]


@onedal
def test_the_output_says_with_how_many_rows_a_record_was_scored(tmp_path: Path) -> None:
    bundle = saved(XGBClassifier(n_estimators=60), tmp_path, fields=FIELDS, extra=BANDS, engine="onedal")
    batch = pa.RecordBatch.from_pandas(records()[list(FIELDS)], preserve_index=False)
    for together in (False, True):
        first, again = (Scorer(bundle.path, together=together).score(batch) for _ in range(2))
        assert first.errors.num_rows == 0
        assert first.decided.equals(again.decided)
        assert set(first.decided.column("engine").to_pylist()) == {"onedal"}
        assert set(first.decided.column("rows").to_pylist()) == {batch.num_rows}
    alone = Scorer(bundle.path).score(batch.slice(0, 1)).decided
    assert alone.column("rows").to_pylist() == [1]


@onedal
def test_without_the_library_the_same_bundle_is_served_by_xgboost(tmp_path: Path) -> None:
    bundle = saved(XGBClassifier(n_estimators=5), tmp_path, engine="onedal")
    assert "scikit-learn-intelex" in json.loads((bundle.path / "bundle.json").read_text())["libraries"]
    code = (
        "import sys; sys.modules['daal4py'] = None; import tabserve.bundle; from tabserve import engines; "
        "found = engines.load(tabserve.bundle.load(sys.argv[1])); print(*found.names, *found.dropped)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(bundle.path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"xgboost onedal: not used: onedal: daal4py is not installed. {extras.how('onedal')}\n"
