from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.tree import DecisionTreeRegressor
from xgboost import XGBClassifier, XGBRegressor

from tabserve import engines
from tabserve.arrays import Array
from tabserve.engines.contributions import boosters
from tabserve.engines.contributions.boosters import BoosterContributions
from tabserve.engines.contributions.shallow import ShallowTrees
from tabserve.engines.contributions.trees import decompose
from tabserve.engines.xgboost import iterations
from tests.unit.bundles import saved

pytestmark = pytest.mark.filterwarnings("ignore:.*`booster=(dart|gblinear)` is deprecated:UserWarning")

SMALL = {"n_estimators": 20, "n_jobs": 1, "random_state": 0, "enable_categorical": False}
CODES = SMALL | {"enable_categorical": True, "max_cat_to_onehot": 2}


def table() -> Array:
    """Four numbers, of which two can be missing, and the codes of a category that can be missing."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(300, 5)).round(2).astype(np.float32)
    matrix[:, 4] = rng.integers(0, 9, 300)
    matrix[rng.random((300, 5)) < [0.2, 0, 0, 0.3, 0.1]] = np.nan
    return matrix


def trained(model: Any, matrix: Array, targets: int = 2) -> Any:
    """The Booster of a model that learnt to tell quantiles, or with `targets` 0 the value."""
    filled = np.nan_to_num(matrix)
    value = filled[:, 0] + filled[:, 1] * filled[:, 2] + np.sin(filled[:, 4] * 2) + (filled[:, 3] == 0)
    target = pd.qcut(value, targets, labels=False) if targets else value
    kinds = ["float"] * 4 + ["c" if model.enable_categorical else "float"]
    stopping = {"eval_set": [(matrix[:60], target[:60])], "verbose": False} if model.early_stopping_rounds else {}
    return model.set_params(feature_types=kinds).fit(matrix, target, **stopping).get_booster()


def of_xgboost(booster: Any, matrix: Array) -> Array:
    options = {"pred_contribs": True, "strict_shape": True, "iteration_range": iterations(booster)}
    return np.asarray(booster.predict(xgboost.DMatrix(matrix, feature_types=booster.feature_types), **options))


MODELS = [
    (XGBClassifier(max_depth=4, **SMALL), 2),
    (XGBClassifier(max_depth=4, **CODES), 2),
    (XGBClassifier(max_depth=3, **CODES | {"max_cat_to_onehot": 20}), 2),
    (XGBClassifier(max_depth=3, **CODES), 4),
    (XGBClassifier(max_depth=1, **SMALL), 2),
    (XGBClassifier(max_depth=7, **SMALL), 2),
    (XGBClassifier(max_depth=3, **SMALL, early_stopping_rounds=2, learning_rate=1.0), 3),
    (XGBClassifier(max_depth=3, **SMALL, booster="dart", rate_drop=0.5), 2),
    (XGBClassifier(max_depth=4, **SMALL, num_parallel_tree=3, subsample=0.5), 3),
    (XGBClassifier(max_depth=5, **SMALL | {"n_estimators": 1}, num_parallel_tree=20, colsample_bynode=0.5), 2),
    (XGBRegressor(max_depth=6, **SMALL, base_score=0.3), 0),
    (XGBRegressor(max_depth=4, **SMALL, max_leaves=5, grow_policy="lossguide", tree_method="hist"), 0),
    (XGBRegressor(max_depth=4, **SMALL, gamma=1e9), 0),  # trees of one leaf
]


@pytest.mark.parametrize(("model", "targets"), MODELS)
def test_tables_contribute_what_xgboost_does(model: Any, targets: int) -> None:
    matrix = table()
    booster = trained(model, matrix, targets)
    beyond = np.concatenate([matrix, -matrix, matrix * 1000, np.full((1, 5), np.nan, np.float32)])
    expected = of_xgboost(booster, beyond)
    found = BoosterContributions(booster, iterations(booster), matrix)(beyond)
    scale = max(1.0, float(abs(expected).max()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)
    margin = booster.inplace_predict(
        beyond, iteration_range=iterations(booster), predict_type="margin", strict_shape=True
    )
    np.testing.assert_allclose(found.sum(axis=2, dtype=np.float64), margin, rtol=0, atol=1e-5 * scale)


def test_values_at_the_thresholds_and_beside_them_go_where_xgboost_sends_them() -> None:
    matrix = table()
    booster = trained(XGBClassifier(max_depth=4, **SMALL), matrix)
    cuts = booster.trees_to_dataframe().query("Feature == 'f1'")["Split"].to_numpy(np.float32)
    around = np.concatenate([cuts, np.nextafter(cuts, np.float32(np.inf)), np.nextafter(cuts, np.float32(-np.inf))])
    rows = np.repeat(matrix[:1], len(around), axis=0)
    rows[:, 1] = around
    found = BoosterContributions(booster, (0, 0), matrix)(rows)
    np.testing.assert_allclose(found, of_xgboost(booster, rows), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("model", "targets"), MODELS[:4])
def test_a_rows_contributions_are_the_same_bits_in_any_company(model: Any, targets: int) -> None:
    matrix = table()
    contributions = BoosterContributions(trained(model, matrix, targets), (0, 0), matrix)
    whole = contributions(matrix)
    alone = np.concatenate([contributions(matrix[at : at + 1]) for at in range(len(matrix))])
    turned = contributions(matrix[::-1])[::-1]
    assert whole.tobytes() == alone.tobytes() == turned.tobytes()


@pytest.mark.parametrize(
    ("model", "targets"),
    [
        (XGBClassifier(max_depth=9, **SMALL), 2),
        (XGBClassifier(booster="gblinear", **SMALL), 2),
        (XGBClassifier(max_depth=3, **SMALL, multi_strategy="multi_output_tree", tree_method="hist"), 3),
    ],
)
def test_what_tables_do_not_fit_stays_with_xgboost(model: Any, targets: int) -> None:
    matrix = np.nan_to_num(table())
    booster = trained(model, matrix, targets)
    assert boosters.contributor(booster, (0, 0), matrix) is None


def test_contributions_of_a_tree_are_its_shapley_values() -> None:
    """By definition: the mean over all orders of what a feature adds, with unknown ones weighted by branch."""
    matrix = table()[:, :3].astype(np.float64)
    target = np.nan_to_num(matrix[:, 0]) + np.nan_to_num(matrix[:, 1] * matrix[:, 2])
    [tree] = decompose(DecisionTreeRegressor(max_depth=6, random_state=0).fit(matrix, target))

    def worth(row: Array, known: tuple[int, ...], node: int = 0) -> float:
        left, right = int(tree.left[node]), int(tree.right[node])
        if left < 0:
            return float(tree.value[node])
        feature, value = tree.feature[node], row[tree.feature[node]]
        if feature in known:
            goes_left = tree.missing_left[node] if np.isnan(value) else value <= tree.threshold[node]
            return worth(row, known, left if goes_left else right)
        both = [tree.cover[side] * worth(row, known, side) for side in (left, right)]
        return float(sum(both) / tree.cover[node])

    orders = list(permutations(range(3)))
    found = ShallowTrees([tree], 3)(matrix[:20])
    for row, values in zip(matrix[:20], found, strict=True):
        steps = [[worth(row, order[: at + 1]) - worth(row, order[:at]) for at in np.argsort(order)] for order in orders]
        np.testing.assert_allclose(values[0, :3], np.mean(steps, axis=0), rtol=0, atol=1e-6)


def test_tables_that_xgboost_disagrees_with_are_not_used() -> None:
    class Disagreeing(xgboost.Booster):  # type: ignore[misc]
        def predict(self, *args: Any, **options: Any) -> Any:
            return super().predict(*args, **options) * 1.001

    matrix = table()
    booster = trained(XGBClassifier(max_depth=4, **SMALL), matrix)
    other = Disagreeing(model_file=booster.save_raw("json"))
    assert boosters.contributor(booster, (0, 0), matrix) is not None
    assert boosters.contributor(other, (0, 0), matrix) is None


@pytest.mark.parametrize("depth", [4, 9])  # from tables, and XGBoost's own
def test_an_engine_contributes_the_same_alone_and_beside_its_values(tmp_path: Path, depth: int) -> None:
    bundle = saved(XGBClassifier(max_depth=depth, **SMALL), tmp_path, "binary", fields=("amount", "income", "age"))
    native, features = engines.load_native(bundle, 1), bundle.reference.features
    alone = native.run(features, ["contributions"])["contributions"]
    beside = native.run(features, ["predict_proba", "contributions", "margin"])
    np.testing.assert_array_equal(beside["contributions"], alone)
    np.testing.assert_allclose(
        alone.sum(axis=1), beside["margin"], rtol=0, atol=1e-5 * max(1.0, float(abs(alone).max()))
    )
    assert native.row_independent
