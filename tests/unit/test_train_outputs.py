"""Every kind of answer that a model may give is served as the model itself answers the same records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb
from sklearn.cluster import KMeans
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.neighbors import LocalOutlierFactor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC, OneClassSVM
from sklearn.tree import DecisionTreeRegressor

from tabserve import train
from tabserve.bundle import Bundle, BundleError
from tests.unit.cores import Cores

RECORD = "record: [{name: a, type: number}, {name: b, type: number}]\nfeatures: [a, b]\n"
random = np.random.default_rng(0)
X = pd.DataFrame(random.normal(size=(200, 2)), columns=["a", "b"])
NOISY = X.a + random.normal(size=200)
YES = np.array(["no", "yes"])[(NOISY > 1).astype(int)]
NUMBER = (NOISY > 0).astype(int)
RATE = 1 / (1 + np.exp(-NOISY))
TARGETS = np.c_[X.a + 1, X.b - 1]


def saved(model: Any, folder: Path, task: str, outputs: str = "") -> Bundle:
    schema = folder / "schema.yaml"
    schema.write_text(f"task: {task}\n{RECORD}{outputs}")
    return train.save(model, folder / "bundle", name="m", version="1", schema=schema, sample=X)


@pytest.mark.parametrize(
    "model",
    [
        FixedThresholdClassifier(LogisticRegression(), threshold=0.2, pos_label="yes"),
        SVC(probability=True, class_weight="balanced", random_state=0),
        RandomForestClassifier(5, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.filterwarnings("ignore:The `probability` parameter")
def test_the_label_is_the_models_own_class(model: Any, tmp_path: Path) -> None:
    """Source: scikit-learn#13211, #14100 (SVC), #30036 (tuned thresholds)."""
    own, chances = model.fit(X, YES).predict(X), model.predict_proba(X)
    cores = Cores(saved(model, tmp_path, "binary"))
    told, outputs = cores.predictions(X), cores.outputs(X, "label", "decision")
    assert [one["label"] for one in told] == own.tolist()
    assert [one["decision"] for one in told] == own.tolist()
    assert outputs["label"].tolist() == outputs["decision"].tolist() == own.tolist()
    expected = chances[np.arange(len(X)), (own == "yes").astype(int)]
    np.testing.assert_allclose([one["score"] for one in told], expected, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [LinearSVC(), SVC(), RidgeClassifier(), SGDClassifier(random_state=0)],
    ids=lambda model: type(model).__name__,
)
def test_a_classifier_without_probabilities_decides_its_class(model: Any, tmp_path: Path) -> None:
    """Source: kserve/kserve#374."""
    own = model.fit(X, YES).predict(X).tolist()
    bundle = saved(model, tmp_path, "binary")
    assert Cores(bundle).predictions(X) == [{"decision": each, "label": each} for each in own]


@pytest.mark.parametrize("model", [LinearSVC(), make_pipeline(StandardScaler(), LinearSVC())])
def test_its_margin_is_the_score_where_the_schema_asks_for_it(model: Any, tmp_path: Path) -> None:
    outputs = (
        "outputs:\n  classes: [accept, fraud]\n  reasons: {top: 1}\n"
        "  decision: {score: margin, bands: [{from: 0.5, label: block}, {from: -.inf, label: pass}]}\n"
    )
    margin = model.fit(X, NUMBER).decision_function(X)
    told = Cores(saved(model, tmp_path, "binary", outputs)).predictions(X)
    np.testing.assert_allclose([one["score"] for one in told], margin, rtol=1e-6)
    assert [one["decision"] for one in told] == np.where(margin >= 0.5, "block", "pass").tolist()
    assert [one["label"] for one in told] == np.where(margin > 0, "fraud", "accept").tolist()


def test_a_probability_that_the_model_does_not_give_is_no_score(tmp_path: Path) -> None:
    outputs = "outputs: {classes: [accept, fraud], decision: {score: fraud}}\n"
    model = LinearSVC().fit(X, NUMBER)
    with pytest.raises(BundleError, match=r"the score `fraud` needs predict_proba.*Decide on the `margin`"):
        saved(model, tmp_path, "binary", outputs)
    saved(model, tmp_path, "binary", outputs.replace("score: fraud", "score: margin"))


@pytest.mark.parametrize(
    "model",
    [
        IsolationForest(n_estimators=10, random_state=0),
        OneClassSVM(),
        LocalOutlierFactor(novelty=True),
        EllipticEnvelope(random_state=0),
        make_pipeline(StandardScaler(), IsolationForest(n_estimators=10, random_state=0)),
    ],
    ids=lambda model: type(model).__name__,
)
def test_the_score_of_an_outlier_detector_is_higher_for_what_is_stranger(model: Any, tmp_path: Path) -> None:
    outputs = (
        "outputs: {decision: {score: anomaly_score, bands: [{from: 0, label: look}, {from: -.inf, label: fine}]}}\n"
    )
    values = X.to_numpy()  # LocalOutlierFactor warns of the names it was fitted with
    strange = np.where(model.fit(values).predict(values) == -1, "anomaly", "normal").tolist()
    told = Cores(saved(model, tmp_path, "anomaly", outputs)).predictions(X)
    assert [one["label"] for one in told] == strange
    np.testing.assert_allclose([one["score"] for one in told], -model.decision_function(values), rtol=1e-6, atol=1e-9)
    assert {one["decision"] for one in told if one["label"] == "anomaly"} == {"look"}


@pytest.mark.parametrize("model", [KMeans(3, random_state=0), GaussianMixture(3, random_state=0)], ids=str)
def test_a_cluster_is_a_class(model: Any, tmp_path: Path) -> None:
    own = model.fit(X).predict(X)
    told = Cores(saved(model, tmp_path, "multiclass", "outputs: {classes: [x, y, z]}\n")).predictions(X)
    assert [one["label"] for one in told] == np.array(["x", "y", "z"])[own].tolist()


@pytest.mark.parametrize(
    "model",
    [
        RandomForestRegressor(5, random_state=0),
        LinearRegression(),
        DecisionTreeRegressor(max_depth=3),
        xgb.XGBRegressor(n_estimators=5),
        xgb.XGBRegressor(n_estimators=5, multi_strategy="multi_output_tree"),
    ],
    ids=lambda model: f"{type(model).__name__} {getattr(model, 'multi_strategy', '')}",
)
def test_several_targets_are_named(model: Any, tmp_path: Path) -> None:
    """Source: kserve/kserve#3243, onnx/sklearn-onnx#474."""
    outputs = (
        "outputs:\n  targets: [first, second]\n"
        "  decision: {score: second, bands: [{from: -1, label: high}, {from: -.inf, label: low}]}\n"
    )
    own = model.fit(X, TARGETS).predict(X)
    cores = Cores(saved(model, tmp_path, "regression", outputs))
    told = cores.predictions(X)
    np.testing.assert_allclose([list(one["predict"].values()) for one in told], own, rtol=1e-5)
    assert set(told[0]["predict"]) == {"first", "second"}
    assert [one["score"] for one in told] == [one["predict"]["second"] for one in told]
    assert [one["decision"] for one in told] == ["high" if one["score"] >= -1 else "low" for one in told]
    assert cores.outputs(X, "predict")["predict"].shape == (200, 2)
    assert cores.predictor.metadata.outputs[0].shape == (-1, 2)


def test_several_targets_without_names_are_refused_with_how_many(tmp_path: Path) -> None:
    model = LinearRegression().fit(X, TARGETS)
    with pytest.raises(BundleError, match=r"`outputs\.targets`: expected 2 names, one for each value"):
        saved(model, tmp_path, "regression")


def test_quantiles_at_once_are_targets(tmp_path: Path) -> None:
    model = xgb.XGBRegressor(n_estimators=5, objective="reg:quantileerror", quantile_alpha=[0.1, 0.9]).fit(X, NOISY)
    told = Cores(saved(model, tmp_path, "regression", "outputs: {targets: [q10, q90]}\n")).predictions(X)
    np.testing.assert_allclose([[one["predict"]["q10"], one["predict"]["q90"]] for one in told], model.predict(X))


@pytest.mark.parametrize("model", [LinearRegression(), DecisionTreeRegressor(max_depth=3)], ids=str)
def test_a_target_of_one_column_is_one_value(model: Any, tmp_path: Path) -> None:
    own = np.ravel(model.fit(X, np.c_[X.a]).predict(X))
    told = Cores(saved(model, tmp_path, "regression")).predictions(X)
    np.testing.assert_allclose([one["score"] for one in told], own)


@pytest.mark.parametrize(
    "model",
    [
        MLPClassifier((4,), max_iter=20, random_state=0),
        RandomForestClassifier(5, random_state=0),
        xgb.XGBClassifier(n_estimators=3),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_several_labels_at_once_are_refused(model: Any, tmp_path: Path) -> None:
    model.fit(X, (X > 0).astype(int).to_numpy())
    with pytest.raises(BundleError, match=r"answers several labels per row\. Train and save one model for each label"):
        saved(model, tmp_path, "binary")


@pytest.mark.parametrize("objective", ["reg:logistic", "binary:logistic", "reg:squarederror", "reg:gamma"])
def test_a_rate_is_a_regression(objective: str, tmp_path: Path) -> None:
    model = xgb.XGBRegressor(objective=objective, n_estimators=5).fit(X, RATE)
    told = Cores(saved(model, tmp_path, "regression")).predictions(X)
    np.testing.assert_allclose([one["score"] for one in told], model.predict(X), rtol=1e-6)


@pytest.mark.parametrize("objective", ["binary:hinge", "binary:logitraw"])
def test_a_classifier_of_xgboost_without_probabilities_decides_its_class(objective: str, tmp_path: Path) -> None:
    model = xgb.XGBClassifier(objective=objective, n_estimators=5).fit(X, NUMBER)
    told = Cores(saved(model, tmp_path, "binary", "outputs: {classes: [accept, fraud]}\n")).predictions(X)
    assert told == [{"decision": each, "label": each} for each in np.array(["accept", "fraud"])[model.predict(X)]]


def test_a_booster_of_margins_is_a_regression_and_no_classifier(tmp_path: Path) -> None:
    booster = xgb.train({"objective": "binary:logitraw"}, xgb.DMatrix(X, NUMBER), 5)
    with pytest.raises(
        BundleError, match=r"Booster with binary:logitraw .* has no classes\. Train an XGBClassifier, or set"
    ):
        saved(booster, tmp_path, "binary")
    told = Cores(saved(booster, tmp_path, "regression")).predictions(X)
    np.testing.assert_allclose([one["score"] for one in told], booster.predict(xgb.DMatrix(X)), rtol=1e-6)


def test_a_model_of_another_task_is_refused_by_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="task binary: got an outlier detector"):
        saved(IsolationForest(n_estimators=5).fit(X), tmp_path, "binary")
    with pytest.raises(BundleError, match="task anomaly: got a classifier of 2 classes"):
        saved(LogisticRegression().fit(X, NUMBER), tmp_path, "anomaly")
    with pytest.raises(
        BundleError, match="task anomaly: expected an outlier detector of scikit-learn, got XGBClassifier"
    ):
        saved(xgb.XGBClassifier(n_estimators=2).fit(X, NUMBER), tmp_path, "anomaly")


def test_the_labels_of_booleans_are_those_of_0_and_1(tmp_path: Path) -> None:
    """As XGBoost has them; source: tests of own category codes (dmlc/xgboost#9676)."""
    own = LogisticRegression().fit(X, NUMBER > 0).predict(X)
    told = Cores(saved(LogisticRegression().fit(X, NUMBER > 0), tmp_path, "binary")).predictions(X)
    assert [one["label"] for one in told] == [str(int(each)) for each in own]
