from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler
from sklearn.tree import DecisionTreeRegressor
from xgboost import XGBClassifier, XGBRegressor

from tabserve import engines
from tabserve.arrays import take
from tabserve.bundle import Bundle
from tests.unit.bundles import saved


def linear(final: Any) -> Any:
    columns = make_column_transformer((OneHotEncoder(), ["country"]), (StandardScaler(), ["amount", "age"]))
    return make_pipeline(columns, final)


LINEAR = ("amount", "country", "age")
NUMBERS = ("amount", "age")
MISSING = ("amount", "income", "age")


@pytest.mark.parametrize(
    ("model", "task", "fields"),
    [
        (XGBClassifier(n_estimators=50), "binary", ("amount", "income", "age")),
        (XGBClassifier(n_estimators=20, enable_categorical=True), "multiclass", ("amount", "country", "income")),
        (XGBRegressor(n_estimators=50), "regression", ("amount", "income", "age")),
        (linear(LogisticRegression()), "binary", LINEAR),
        (linear(LogisticRegression()), "multiclass", LINEAR),
    ],
)
def test_contributions_sum_to_the_margin(tmp_path: Path, model: Any, task: str, fields: tuple[str, ...]) -> None:
    bundle = saved(model, tmp_path, task, fields=fields)
    answers = engines.load_native(bundle, 1).run(bundle.reference.features, ["contributions", "margin"])
    np.testing.assert_allclose(answers["contributions"].sum(axis=-1), answers["margin"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "task", "fields"),
    [
        (XGBClassifier(n_estimators=50), "binary", ("amount", "income", "age")),
        (XGBClassifier(n_estimators=50, booster="dart", rate_drop=0.2), "binary", ("amount", "income")),
        (XGBClassifier(n_estimators=20, enable_categorical=True), "multiclass", ("amount", "country", "income")),
        (XGBRegressor(n_estimators=50, objective="reg:gamma"), "regression", ("amount", "income", "age")),
    ],
)
@pytest.mark.filterwarnings("ignore:.*`booster=(dart|gblinear)` is deprecated:UserWarning")  # from XGBoost 3.4 on
def test_xgboost_answers_the_same_bits_with_contributions_and_without(
    tmp_path: Path, model: Any, task: str, fields: tuple[str, ...]
) -> None:
    bundle = saved(model, tmp_path, task, fields=fields)
    native, features = engines.load_native(bundle, 1), bundle.reference.features
    outputs = sorted(native.outputs - {"contributions"})
    for part in (features, take(features, slice(3, 4))):
        alone, explained = native.run(part, outputs), native.run(part, [*outputs, "contributions"])
        for name in outputs:
            np.testing.assert_array_equal(explained[name], alone[name])


def test_a_linear_regressions_contributions_sum_to_its_value(tmp_path: Path) -> None:
    bundle = saved(linear(Ridge()), tmp_path, "regression", fields=LINEAR)
    answers = engines.load_native(bundle, 1).run(bundle.reference.features, ["contributions", "predict"])
    np.testing.assert_allclose(answers["contributions"].sum(axis=-1), answers["predict"], rtol=1e-12)


@pytest.mark.parametrize(
    ("model", "task", "fields", "target"),
    [
        (DecisionTreeRegressor(), "regression", NUMBERS, "predict"),
        (RandomForestClassifier(20, random_state=0), "binary", NUMBERS, "predict_proba"),
        (linear(RandomForestClassifier(20, random_state=0)), "multiclass", LINEAR, "predict_proba"),
        (RandomForestRegressor(20, random_state=0), "regression", NUMBERS, "predict"),
        (ExtraTreesClassifier(20, random_state=0), "binary", NUMBERS, "predict_proba"),
        (GradientBoostingClassifier(n_estimators=20), "multiclass", NUMBERS, "margin"),
        (linear(GradientBoostingRegressor(n_estimators=20)), "regression", LINEAR, "predict"),
        (HistGradientBoostingClassifier(max_iter=20), "binary", MISSING, "margin"),
        (HistGradientBoostingRegressor(max_iter=20), "regression", MISSING, "predict"),
    ],
)
def test_contributions_of_scikit_learns_trees_sum_to_their_answer(
    tmp_path: Path, model: Any, task: str, fields: tuple[str, ...], target: str
) -> None:
    bundle = saved(model, tmp_path, task, fields=fields, engine="sklearn")
    answers = engines.load_native(bundle, 1).run(bundle.reference.features, ["contributions", target])
    two_classes = task == "binary" and target == "predict_proba"
    expected = answers[target][:, 1] if two_classes else answers[target]
    np.testing.assert_allclose(answers["contributions"].sum(axis=-1), expected, rtol=1e-5, atol=1e-5)


def test_a_trees_contributions_are_what_its_splits_change(tmp_path: Path) -> None:
    """By definition, for a single split: the leaf's mean minus the overall mean."""
    bundle = saved(DecisionTreeRegressor(max_depth=1), tmp_path, "regression", engine="sklearn")
    features = bundle.reference.features
    answers = engines.load_native(bundle, 1).run(features, ["contributions", "predict"])
    changes = answers["contributions"][:, :-1]
    split = np.flatnonzero(np.abs(changes).sum(axis=0))
    assert len(split) == 1
    mean = answers["predict"].mean()
    np.testing.assert_allclose(answers["contributions"][:, -1], mean, rtol=1e-6)
    np.testing.assert_allclose(changes[:, split[0]], answers["predict"] - mean, atol=1e-6)


def test_a_linear_models_contributions_are_its_shapley_values(tmp_path: Path) -> None:
    """By definition: the mean over all orders of what a feature adds, with absent ones averaged over the background."""
    model = linear(LogisticRegression())
    bundle = saved(model, tmp_path, fields=LINEAR)
    features = bundle.reference.features
    assert isinstance(features, dict)
    native = engines.load_native(bundle, 1)

    def value(row: int, known: tuple[str, ...]) -> float:
        mixed = {
            name: np.full(len(column), column[row], column.dtype) if name in known else column
            for name, column in features.items()
        }
        return float(native.run(mixed, ["margin"])["margin"].mean())

    orders = list(permutations(LINEAR))
    for row in (0, 13):
        shapley = [
            sum(value(row, order[: order.index(name) + 1]) - value(row, order[: order.index(name)]) for order in orders)
            / len(orders)
            for name in LINEAR
        ]
        answer = native.run(take(features, slice(row, row + 1)), ["contributions"])["contributions"][0]
        np.testing.assert_allclose(answer, [*shapley, value(row, ())], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(StandardScaler(), PoissonRegressor()),
        make_pipeline(PolynomialFeatures(2), StandardScaler(), Ridge()),
    ],
)
def test_what_is_not_additive_in_its_features_gives_none(tmp_path: Path, model: Any) -> None:
    bundle: Bundle = saved(model, tmp_path, "regression")
    assert "contributions" not in bundle.manifest.model.outputs
