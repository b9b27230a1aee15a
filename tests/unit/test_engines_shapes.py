"""Crafted skops files that lead scikit-learn's native code out of its arrays are refused at load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.cluster import KMeans
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor, RadiusNeighborsClassifier
from sklearn.svm import SVC, SVR, NuSVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier

from tabserve.bundle import BundleError
from tabserve.bundle.files import File
from tabserve.engines.estimators import read

X = np.random.default_rng(0).random((60, 4))
Y = (X[:, 0] > 0.5).astype(int)
THREE = np.digitize(X[:, 0], [0.3, 0.6])
FEW = {"n_estimators": 3, "random_state": 0}
STACKED = StackingClassifier([("a", LogisticRegression()), ("b", LogisticRegression())], RandomForestClassifier(**FEW))


def stored(model: Any, folder: Path) -> Path:
    path = folder / "model.skops"
    skops.io.dump(model, path)
    return path


def categorical() -> Any:
    table = np.column_stack([THREE, X[:, 1]])
    return HistGradientBoostingClassifier(max_iter=3, categorical_features=[0], min_samples_leaf=3).fit(table, Y)


@pytest.mark.parametrize(
    "model",
    [
        BaggingClassifier(DecisionTreeClassifier(), max_features=0.5, **FEW),
        GradientBoostingClassifier(**FEW),
        GradientBoostingClassifier(init=LogisticRegression(), **FEW),
        IsolationForest(max_features=0.5, **FEW),
        KNeighborsClassifier(algorithm="brute"),
        LocalOutlierFactor(novelty=True),
        OneClassSVM(),
        RadiusNeighborsClassifier(algorithm="brute"),
        SVC(kernel="precomputed"),
        SVC(probability=True),
        SVR(),
        STACKED,
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_was_fitted_is_read(model: Any, tmp_path: Path) -> None:
    table = X @ X.T if getattr(model, "kernel", "") == "precomputed" else X
    model.fit(table, THREE)

    assert np.array_equal(read(File.of(stored(model, tmp_path)), "skops").predict(table), model.predict(table))


def test_several_targets_of_neighbours_are_read(tmp_path: Path) -> None:
    model = KNeighborsClassifier().fit(X, np.column_stack([Y, THREE]))

    assert np.array_equal(read(File.of(stored(model, tmp_path)), "skops").predict(X), model.predict(X))


def test_splits_on_categories_are_read(tmp_path: Path) -> None:
    model, table = categorical(), np.column_stack([THREE, X[:, 1]])

    assert np.array_equal(read(File.of(stored(model, tmp_path)), "skops").predict(table), model.predict(table))


def _set(name: str, change: Callable[[Any], Any]) -> Callable[[Any], None]:
    return lambda model: setattr(model, name, change(getattr(model, name)))


def _wide_tree(model: Any) -> None:
    """Give one of the trees more columns than are drawn for it."""
    tree = DecisionTreeClassifier().fit(np.column_stack([np.zeros((60, 3)), X[:, 0]]), Y)
    member = model.estimators_[0]
    member.tree_, member.n_features_in_ = tree.tree_, 4


def _narrow(model: Any) -> None:
    model.estimators_[0].n_features_in_ = model.n_features_in_ = 1


@pytest.mark.parametrize(
    ("model", "damage", "problem"),
    [
        (GradientBoostingClassifier(**FEW), _set("estimators_", lambda one: np.hstack([one, one])), "boosting stages"),
        (GradientBoostingClassifier(**FEW), _set("n_trees_per_iteration_", lambda _: 2), "boosting stages"),
        (IsolationForest(max_features=0.5, **FEW), _wide_tree, "a feature beyond the 2 it has"),
        (ExtraTreesClassifier(**FEW), _narrow, "a feature beyond the 1 it has"),
        (KNeighborsClassifier(algorithm="brute"), _set("_y", lambda places: places + 10**6), "neighbours' classes"),
        (KNeighborsClassifier(algorithm="brute"), _set("_y", lambda places: places[:5]), "neighbours' classes"),
        (KNeighborsClassifier(algorithm="brute"), _set("_fit_X", lambda rows: rows[:, :1].copy()), "neighbours: expec"),
        (RadiusNeighborsClassifier(), _set("_y", lambda places: places - 1), "neighbours' classes"),
        (SVC(), _set("_n_support", lambda counts: counts * 1000), "their number does not match"),
        (SVC(), _set("support_", lambda places: places[:2].copy()), "their number does not match"),
        (SVC(), _set("_dual_coef_", lambda values: values[:, :1].copy()), "coefficients"),
        (SVC(), _set("support_vectors_", lambda rows: rows[:, :1].copy()), "support vectors: expected shape"),
        (NuSVC(), _set("_intercept_", lambda values: values[:0]), "intercepts"),
        (SVR(), _set("_n_support", lambda counts: counts + 5), "their number does not match"),
        (SVC(kernel="precomputed"), _set("support_", lambda places: places + 10**6), "expected places from 0 to 59"),
        (KMeans(2), _set("cluster_centers_", lambda rows: rows[:, :1].copy()), "cluster centres"),
    ],
)  # fmt: skip
def test_a_crafted_model_is_refused(model: Any, damage: Any, problem: str, tmp_path: Path) -> None:
    model.fit(X @ X.T if getattr(model, "kernel", "") == "precomputed" else X, Y)
    damage(model)

    with pytest.raises(BundleError, match=problem):
        read(File.of(stored(model, tmp_path)), "skops")


def test_a_first_estimate_of_other_columns_is_refused(tmp_path: Path) -> None:
    model = GradientBoostingClassifier(**FEW).fit(X, THREE)
    model.init_ = GradientBoostingClassifier(init="zero", **FEW).fit(X, np.arange(60) % 2)

    with pytest.raises(BundleError, match="first estimate: expected shape"):
        read(File.of(stored(model, tmp_path)), "skops")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda model: setattr(model._bin_mapper, "is_categorical_", np.zeros(2, np.uint8)), "a feature that has none"),
        (lambda model: setattr(model._bin_mapper, "is_categorical_", np.ones(0, np.uint8)), "a feature that has none"),
        (lambda model: _bitsets(model, lambda sets: sets[:, :1].copy()), "categories point outside"),
        (lambda model: _bitsets(model, lambda sets: sets[:0].copy()), "categories point outside"),
    ],
)
def test_crafted_categories_are_refused(damage: Any, problem: str, tmp_path: Path) -> None:
    model = categorical()
    damage(model)

    with pytest.raises(BundleError, match=problem):
        read(File.of(stored(model, tmp_path)), "skops")


def _bitsets(model: Any, change: Callable[[Any], Any]) -> None:
    for (predictor,) in model._predictors:
        predictor.raw_left_cat_bitsets = change(predictor.raw_left_cat_bitsets)


def test_a_tree_that_two_models_share_is_looked_at_in_both(tmp_path: Path) -> None:
    wide, narrow = DecisionTreeClassifier().fit(X, (X[:, 3] > 0.5)), DecisionTreeClassifier().fit(X[:, :1], Y)
    narrow.tree_ = wide.tree_
    narrow.beside_ = wide

    with pytest.raises(BundleError, match="a feature beyond the 1 it has"):
        read(File.of(stored(narrow, tmp_path)), "skops")
