"""What `save` keeps of held-out records: answers, metrics and calibration, the same as scikit-learn's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import IsolationForest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import brier_score_loss, confusion_matrix, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from xgboost import XGBClassifier

import tabserve.train
from tabserve.bundle import Bundle, BundleError, load
from tabserve.bundle.evaluation import Evaluation, Outcomes
from tests.unit.bundles import records, resealed, saved, target

BANDS = (
    "  decision: {score: fraud, bands: [{from: 0.7, label: block}, {from: 0.3, label: review}, {from: 0, label: ok}]}\n"
)
TEST = slice(500, None)


def evaluated(model: Any, folder: Path, task: str = "binary", **options: Any) -> tuple[Bundle, Evaluation]:
    """A bundle of a model, evaluated on the last 200 records."""
    held_out, labels = records()[TEST], target(task)[TEST]
    found = saved(model, folder, task, **{"held_out": held_out, "labels": labels, **options})
    assert found.reference.evaluation is not None
    return found, found.reference.evaluation


def outcomes(evaluation: Evaluation) -> Outcomes:
    assert evaluation.outcomes is not None
    return evaluation.outcomes


def test_metrics_are_scikit_learns(tmp_path: Path) -> None:
    model = LogisticRegression()
    bundle, found = evaluated(model, tmp_path, extra=BANDS)
    table = tabserve.train.features(tmp_path / "schema.yaml", records())[TEST]
    true, scores = target("binary")[TEST].to_numpy(), model.predict_proba(table)[:, 1]
    bands = np.digitize(scores, [0.3, 0.7])[:, None]
    held = outcomes(found)

    assert (found.held_out, found.rows) == (True, 200)
    assert found.decisions.bounds.tolist() == ["block", "review", "ok"]
    assert found.decisions.counts.tolist() == [int((bands == at).sum()) for at in (2, 1, 0)]
    assert held.auc == pytest.approx(roc_auc_score(true, scores), abs=1e-12)
    assert held.brier == pytest.approx(brier_score_loss(true, scores), abs=1e-12)
    assert held.confusion.tolist() == [np.bincount(true[bands[:, 0] == at], minlength=2).tolist() for at in (2, 1, 0)]
    assert held.wrong.sum() == confusion_matrix(true, model.predict(table))[[0, 1], [1, 0]].sum()
    assert held.hits.tolist() == held.confusion[:, 1].tolist()
    isotonic = IsotonicRegression(y_min=0, y_max=1).fit(scores, true)
    assert np.interp(scores, *held.knots) == pytest.approx(isotonic.predict(scores), abs=1e-12)
    assert held.deciles[:, 0].sum() == 200
    assert np.average(held.deciles[:, 2], weights=held.deciles[:, 0]) == pytest.approx(true.mean(), abs=1e-12)
    assert found.scores is not None
    assert int(found.scores.counts.sum()) == 200
    assert bundle.reference.histograms["amount"].counts.sum() == len(records())


@pytest.mark.parametrize(
    "given",
    [
        lambda labels: ["fraud" if each else "accept" for each in labels],
        lambda labels: labels.astype(float),
        lambda labels: labels.astype(bool).tolist(),
        lambda labels: labels.astype(str),
    ],
)
def test_labels_are_class_names_or_the_models_own(given: Callable[[Any], Any], tmp_path: Path) -> None:
    labels = target("binary")[TEST]
    _, found = evaluated(LogisticRegression(), tmp_path, labels=given(labels))

    assert outcomes(found).confusion.sum(axis=0).tolist() == np.bincount(labels).tolist()


def test_without_a_decision_the_score_is_for_the_label(tmp_path: Path) -> None:
    _, found = evaluated(LogisticRegression(), tmp_path, "multiclass")
    held = outcomes(found)

    assert found.decisions.bounds.tolist() == ["low", "middle", "high"]
    assert held.confusion.shape == (3, 3)
    assert held.hits.tolist() == np.diag(held.confusion).tolist()
    assert held.wrong.tolist() == (held.confusion.sum(axis=1) - held.hits).tolist()


def test_a_regression_counts_values_that_are_further_off_than_nine_in_ten(tmp_path: Path) -> None:
    model = LinearRegression()
    _, found = evaluated(model, tmp_path, "regression")
    table = tabserve.train.features(tmp_path / "schema.yaml", records())[TEST]
    errors = np.abs(model.predict(table) - target("regression")[TEST])

    assert outcomes(found).far == pytest.approx(np.quantile(errors, 0.9))
    assert outcomes(found).wrong.tolist() == [20]
    assert found.decisions.bounds.tolist() == [""]


def test_a_preprocessor_comes_first(tmp_path: Path) -> None:
    scaler = StandardScaler()
    model = make_pipeline(scaler, LogisticRegression())
    _, found = evaluated(model, tmp_path)

    assert found.rows == 200


def test_models_without_probabilities_have_no_brier_score_and_those_without_scores_no_area(tmp_path: Path) -> None:
    _, found = evaluated(LinearSVC(), tmp_path, extra="  decision: {score: margin}\n")
    assert not np.isnan(outcomes(found).auc)
    assert np.isnan(outcomes(found).brier)
    _, bare = evaluated(LinearSVC(), tmp_path)
    assert bare.scores is None
    assert np.isnan(outcomes(bare).auc)
    assert outcomes(bare).wrong.sum() == outcomes(found).wrong.sum()


def test_anomalies_are_the_first_class(tmp_path: Path) -> None:
    labels = np.where(records().amount[TEST] > 200, "anomaly", "normal")
    _, found = evaluated(IsolationForest(n_estimators=10, random_state=0), tmp_path, "anomaly", labels=labels)

    assert outcomes(found).hits.sum() == (labels == "anomaly").sum()


def test_labels_alone_are_of_the_sample(tmp_path: Path) -> None:
    _, found = evaluated(LogisticRegression(), tmp_path, held_out=None, labels=target("binary"))

    assert (found.held_out, found.rows) == (False, len(records()))


def test_held_out_records_alone_give_no_outcomes(tmp_path: Path) -> None:
    _, found = evaluated(LogisticRegression(), tmp_path, labels=None)

    assert (found.held_out, found.outcomes) == (True, None)


def test_a_bundle_without_either_has_no_evaluation(tmp_path: Path) -> None:
    assert saved(LogisticRegression(), tmp_path).reference.evaluation is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [0, 1]}, "labels: expected 200, one for each of the held-out records, got 2. Give"),
        ({"labels": ["fraud"] * 199 + [None]}, "labels: expected accept or fraud, got None. Give only"),
        ({"labels": [2.0] * 200}, "labels: expected accept or fraud, got 2.0. Give only"),
        ({"held_out": pd.DataFrame({"amount": [-1.0], "age": [20.0]}), "labels": [1]}, "held_out: does not fit"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="^" + message):
        evaluated(LogisticRegression(), tmp_path, **options)


def test_a_regressions_labels_are_numbers(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="labels: expected numbers"):
        evaluated(LinearRegression(), tmp_path, "regression", labels=["much"] * 200)
    with pytest.raises(BundleError, match="labels: expected finite numbers"):
        evaluated(LinearRegression(), tmp_path, "regression", labels=[np.nan] * 200)


def test_an_evaluation_whose_parts_do_not_fit_is_refused(tmp_path: Path) -> None:
    bundle, _ = evaluated(LogisticRegression(), tmp_path)
    path = bundle.path / "reference.npz"
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "evaluation/outcomes.wrong": np.zeros(5)})
    resealed(bundle.path)

    with pytest.raises(BundleError, match="not a reference of format 1: expected outcomes for each"):
        load(bundle.path)


def test_answers_are_kept_by_the_groups_of_each_field(tmp_path: Path) -> None:
    model = XGBClassifier(n_estimators=5, enable_categorical=True)
    bundle, other = evaluated(model, tmp_path, extra=BANDS, fields=("amount", "country"))
    segment, countries = other.segments["country"], records()[TEST].country

    assert list(other.segments) == ["country"]
    assert segment.decisions.sum(axis=1).tolist() == [int((countries == name).sum()) for name in ("DE", "FR", "IT")] + [
        0
    ]
    assert segment.decisions.sum(axis=0).tolist() == other.decisions.counts.tolist()
    assert other.scores is not None
    assert segment.scores.sum(axis=0).tolist() == other.scores.counts.tolist()
    kept = load(bundle.path).reference.evaluation
    assert kept is not None
    assert kept.segments["country"].scores.tolist() == segment.scores.tolist()
