"""XGBoost models as people bring them are served with XGBoost's own answers to the raw records, or refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier

import tabserve.train
from tabserve.bundle import BundleError
from tests.unit.served import assert_serves, save

ROWS = 300
NUMBERS = """
task: binary
record: [{name: a, type: number}, {name: b, type: number, required: false}, {name: c, type: number}]
features: [a, b, c]
"""
BINARY = {"objective": "binary:logistic", "max_depth": 4}


def marked(marker: float) -> tuple[pd.DataFrame, Any]:
    """Numbers, a fifth of which are a marker, and a target that depends on it."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(ROWS, 3)), columns=list("abc"))
    frame = frame.mask(random.random(frame.shape) < 0.2, marker)
    return frame, ((frame.a > 0.3) | (frame.b == marker)).astype(int)


@pytest.mark.parametrize("marker", [-999.0, 0.0])
def test_a_marker_of_the_scikit_learn_api_is_missing_and_so_is_null(marker: float, tmp_path: Path) -> None:
    """dmlc/xgboost#4727, #1842, triton fil_backend#439: `missing` is not in the model's file."""
    given, wanted = marked(marker)
    model = XGBClassifier(n_estimators=20, missing=marker).fit(given, wanted)
    complete = given[(given != marker).all(axis=1)]
    for name, sample in (("marked", given), ("complete", complete)):
        bundle = save(model, tmp_path / name, NUMBERS, sample)
        assert bundle.manifest.model.missing == (marker,)
        assert_serves(bundle, given, {"predict_proba": model.predict_proba(given)})
        null = given.assign(b=np.where(given.b == marker, np.nan, given.b))
        assert_serves(bundle, null, {"predict_proba": model.predict_proba(given)})


@pytest.mark.parametrize("marker", [-999.0, 0.0])
def test_the_marker_of_a_booster_shows_in_its_covers(marker: float, tmp_path: Path) -> None:
    given, wanted = marked(marker)
    booster = xgboost.train(BINARY, xgboost.DMatrix(given, wanted, missing=marker), 20)
    bundle = save(booster, tmp_path, NUMBERS, given)
    assert bundle.manifest.model.missing == (marker,)
    expected = booster.predict(xgboost.DMatrix(given, missing=marker))
    assert_serves(bundle, given, {"predict_proba": np.stack([1 - expected, expected], axis=1)})


def test_a_number_that_looks_like_a_marker_and_was_none_stays_a_number(tmp_path: Path) -> None:
    given, wanted = marked(-999.0)
    booster = xgboost.train(BINARY, xgboost.DMatrix(given, wanted), 20)
    bundle = save(booster, tmp_path, NUMBERS, given)
    assert bundle.manifest.model.missing == ()
    expected = booster.predict(xgboost.DMatrix(given))
    assert_serves(bundle, given, {"predict_proba": np.stack([1 - expected, expected], axis=1)})


@pytest.mark.parametrize("marker", [-999.0, float("nan")])
def test_a_booster_that_does_not_tell_is_refused_until_its_user_does(marker: float, tmp_path: Path) -> None:
    given, wanted = marked(-999.0)
    given.loc[:20, "b"] = np.nan
    matrix = xgboost.DMatrix(given, wanted, missing=marker)
    booster = xgboost.train({**BINARY, "subsample": 0.5}, matrix, 20)
    with pytest.raises(
        BundleError, match=r"has -999 in `a`.* Pass missing=-999 to save if .* otherwise missing=float"
    ) as told:
        save(booster, tmp_path, NUMBERS, given)
    assert "Booster" in str(told.value)
    bundle = save(booster, tmp_path, NUMBERS, given, missing=marker)
    expected = booster.predict(xgboost.DMatrix(given, missing=marker))
    assert_serves(bundle, given, {"predict_proba": np.stack([1 - expected, expected], axis=1)})


def test_a_booster_of_a_sparse_matrix_knows_no_zeros(tmp_path: Path) -> None:
    """XGBoost takes the values that a sparse matrix leaves out for missing."""
    from scipy.sparse import csr_matrix

    given, wanted = marked(0.0)
    booster = xgboost.train(BINARY, xgboost.DMatrix(csr_matrix(given), wanted), 20)
    bundle = save(booster, tmp_path, NUMBERS, given)
    expected = booster.predict(xgboost.DMatrix(csr_matrix(given)))
    assert_serves(bundle, given, {"predict_proba": np.stack([1 - expected, expected], axis=1)})


def test_options_of_a_booster_are_refused_for_other_models(tmp_path: Path) -> None:
    given, wanted = marked(-999.0)
    schema = NUMBERS.replace(", required: false", "")
    options: list[dict[str, Any]] = [{"missing": -999.0}, {"rounds": 1}]
    for model in (XGBClassifier(n_estimators=2), LogisticRegression()):
        model.fit(given, wanted)
        for option in options:
            with pytest.raises(BundleError, match=r"is for an? (XGBoost )?Booster"):
                save(model, tmp_path, schema, given, **option)
        save(model, tmp_path, schema, given)


CATEGORY = """
task: binary
record: [{name: x, type: number}, {name: c, type: category, values: [z, b, a]}]
features: [x, c]
"""


def categories() -> tuple[pd.DataFrame, Any]:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"x": random.normal(size=ROWS), "c": random.choice(["a", "b", "z"], ROWS, p=[0.5, 0.3, 0.2])})
    return frame, ((frame.c == "a") ^ (random.random(ROWS) < 0.1) ^ (frame.x > 1)).astype(int)


ORDERS = {
    "the schema's": ["z", "b", "a"],
    "sorted, as LabelEncoder's and OrdinalEncoder's": ["a", "b", "z"],
    "of appearance, as of pandas.factorize": list(pd.factorize(categories()[0].c)[1]),
}


def booster_on_categories(codes: pd.DataFrame, wanted: Any) -> Any:
    types = ["float", "c"]
    matrix = xgboost.DMatrix(codes.to_numpy(), wanted, feature_types=types, enable_categorical=True)
    return xgboost.train(BINARY, matrix, 12)


CODED: dict[str, Callable[[pd.DataFrame, Any], Any]] = {
    "XGBClassifier": lambda codes, wanted: XGBClassifier(n_estimators=12).fit(codes, wanted),
    "XGBClassifier on an array": lambda codes, wanted: XGBClassifier(n_estimators=12).fit(codes.to_numpy(), wanted),
    "Booster": lambda codes, wanted: xgboost.train(BINARY, xgboost.DMatrix(codes, wanted), 12),
    "Booster on categories": booster_on_categories,
    "LogisticRegression": lambda codes, wanted: LogisticRegression().fit(codes.to_numpy(), wanted),
    "scaled": lambda codes, wanted: make_pipeline(StandardScaler(), LogisticRegression()).fit(codes, wanted),
    "DecisionTreeClassifier": lambda codes, wanted: DecisionTreeClassifier(max_depth=4).fit(codes, wanted),
}


def answered(model: Any, codes: pd.DataFrame) -> Any:
    if isinstance(model, xgboost.Booster):
        types = model.feature_types
        table = codes.to_numpy() if model.feature_names is None else codes
        found = model.predict(xgboost.DMatrix(table, feature_types=types, enable_categorical=True))
        return np.stack([1 - found, found], axis=1)
    return model.predict_proba(codes if hasattr(model, "feature_names_in_") else codes.to_numpy())


def coded(frame: pd.DataFrame, order: list[str]) -> pd.DataFrame:
    return frame.assign(c=frame.c.map({value: float(code) for code, value in enumerate(order)}))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", CODED)
def test_the_order_of_own_category_codes_is_the_models(kind: str, order: str, tmp_path: Path) -> None:
    """dmlc/xgboost#9676, #6488: a model trained on the user's own numbers for categories."""
    given, wanted = categories()
    codes = coded(given, ORDERS[order])
    model = CODED[kind](codes, wanted)
    bundle = save(model, tmp_path, CATEGORY, given)
    assert_serves(bundle, given, {"predict_proba": answered(model, codes)})


@pytest.mark.parametrize("kind", CODED)
def test_own_category_codes_that_do_not_show_are_refused_until_told(kind: str, tmp_path: Path) -> None:
    given, wanted = categories()
    likely = [*ORDERS.values(), list(given.c.value_counts().index)]
    order = next(order for order in (["b", "a", "z"], ["z", "a", "b"]) if order not in likely)
    codes = coded(given, order)
    model = CODED[kind](codes, wanted)
    with pytest.raises(BundleError, match=r'in place of `c`.* Pass codes=\{"c": \[...\]\} to save'):
        save(model, tmp_path, CATEGORY, given)
    bundle = save(model, tmp_path, CATEGORY, given, codes={"c": order})
    assert_serves(bundle, given, {"predict_proba": answered(model, codes)})


def test_the_other_remedy_for_own_codes_holds_too(tmp_path: Path) -> None:
    given, wanted = categories()
    path = tmp_path / "schema.yaml"
    path.write_text(CATEGORY)
    features = tabserve.train.features(path, given)
    model = XGBClassifier(n_estimators=12, enable_categorical=True).fit(features, wanted)
    bundle = save(model, tmp_path, CATEGORY, given)
    assert_serves(bundle, given, {"predict_proba": model.predict_proba(features)})


def test_codes_that_fit_no_feature_are_refused(tmp_path: Path) -> None:
    given, wanted = categories()
    model = XGBClassifier(n_estimators=2).fit(coded(given, ["z", "b", "a"]), wanted)
    with pytest.raises(BundleError, match="`x` is not a category"):
        save(model, tmp_path, CATEGORY, given, codes={"x": ["a"]})
    with pytest.raises(BundleError, match="`c`: expected each of z, b, a once, got a, b"):
        save(model, tmp_path, CATEGORY, given, codes={"c": ["a", "b"]})
    features = given.assign(c=given.c.astype("category"))
    model = XGBClassifier(n_estimators=2, enable_categorical=True).fit(features, wanted)
    with pytest.raises(BundleError, match="itself knows the categories of `c`"):
        save(model, tmp_path, CATEGORY, given, codes={"c": ["a", "b", "z"]})


def test_a_preprocessor_of_own_codes_is_told_them(tmp_path: Path) -> None:
    from sklearn.compose import make_column_transformer
    from sklearn.preprocessing import OneHotEncoder

    given, wanted = categories()
    codes = coded(given, ["a", "b", "z"])
    encoder = make_column_transformer((OneHotEncoder(sparse_output=False), ["c"]), remainder="passthrough")
    model = make_pipeline(encoder, XGBClassifier(n_estimators=5)).fit(codes, wanted)
    with pytest.raises(BundleError, match=r'Pass codes=\{"c": \[...\]\} to save'):
        save(model, tmp_path, CATEGORY, given)
    bundle = save(model, tmp_path, CATEGORY, given, codes={"c": ["a", "b", "z"]})
    assert bundle.manifest.preprocessor is not None
    assert_serves(bundle, given, {"predict_proba": model.predict_proba(codes)})


@pytest.mark.parametrize("missing", [False, True])
def test_categories_that_are_numbers_are_sent_as_text(missing: bool, tmp_path: Path) -> None:
    given, wanted = categories()
    numbers = given.c.map({"a": 20, "b": 5, "z": 10}).astype(pd.CategoricalDtype([20, 5, 10, 7]))
    numbers = numbers.mask(np.arange(ROWS) % 7 == 0) if missing else numbers
    features = given.assign(c=numbers)
    model = XGBClassifier(n_estimators=12, enable_categorical=True).fit(features, wanted)
    with pytest.raises(BundleError, match="Declare `c` as a category with its values as text"):
        save(
            model,
            tmp_path,
            CATEGORY.replace("type: category, values: [z, b, a]", "type: integer, required: false"),
            features,
        )
    schema = CATEGORY.replace("values: [z, b, a]", 'values: ["5", "7", "10", "20"], required: false')
    bundle = save(model, tmp_path, schema, features)
    assert bundle.manifest.model.features[1].values == ("20", "5", "10", "7")
    texts = numbers.astype(object)
    sent = given.assign(c=texts.where(texts.isna(), texts.astype(str)))
    assert_serves(bundle, sent, {"predict_proba": model.predict_proba(features)})


def stopped(given: pd.DataFrame, wanted: Any) -> Any:
    """A Booster that was trained beyond its best round."""
    train, test = xgboost.DMatrix(given[:200], wanted[:200]), xgboost.DMatrix(given[200:], 1 - wanted[200:])
    options = {**BINARY, "eval_metric": "logloss"}
    return xgboost.train(options, train, 40, evals=[(test, "test")], early_stopping_rounds=5, verbose_eval=False)


def test_a_booster_is_served_as_its_own_predict_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """XGBoost's documentation of early stopping: `Booster.predict` takes all trees unless it is given a range."""
    given, wanted = marked(0.5)
    booster = stopped(given, wanted)
    best, count = booster.best_iteration + 1, booster.num_boosted_rounds()
    assert best < count
    ways: list[tuple[dict[str, Any], int]] = [({}, count), ({"rounds": "best"}, best), ({"rounds": 3}, 3)]
    for options, rounds in ways:
        bundle = save(booster, tmp_path, NUMBERS, given, **options)
        assert capsys.readouterr().out == f"{rounds} of {count} boosting rounds are served, the best of them {best}.\n"
        expected = booster.predict(xgboost.DMatrix(given), iteration_range=(0, rounds))
        assert_serves(bundle, given, {"predict_proba": np.stack([1 - expected, expected], axis=1)})
    assert booster.best_iteration == best - 1
    for rounds in (0, count + 1):
        with pytest.raises(BundleError, match=f"rounds: expected 1 to {count}, got {rounds}"):
            save(booster, tmp_path, NUMBERS, given, rounds=rounds)


def test_the_scikit_learn_api_is_served_with_its_best_iteration(tmp_path: Path) -> None:
    given, wanted = marked(0.5)
    model = XGBClassifier(n_estimators=40, early_stopping_rounds=5)
    model.fit(given[:200], wanted[:200], eval_set=[(given[200:], 1 - wanted[200:])], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    bundle = save(model, tmp_path, NUMBERS, given)
    assert_serves(bundle, given, {"predict_proba": model.predict_proba(given)})


OLD = ("dart", "gblinear")


@pytest.mark.parametrize("kind", OLD)
def test_boosters_that_xgboost_means_to_drop_are_served_without_a_word(kind: str, tmp_path: Path) -> None:
    """XGBoost 3.4 warns about them at every load; DART weighs its trees by what was dropped."""
    given, wanted = marked(0.5)
    options = {"booster": kind, **({"rate_drop": 0.5, "skip_drop": 0.2} if kind == "dart" else {})}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", f".*`booster={kind}` is deprecated", UserWarning)
        model = XGBClassifier(n_estimators=15, **options).fit(given, wanted)
        model.save_model(tmp_path / "model.json")
        expected = model.predict_proba(given)
    bundle = save(model, tmp_path, NUMBERS, given)
    assert_serves(bundle, given, {"predict_proba": expected})
    assert_serves(save(tmp_path / "model.json", tmp_path, NUMBERS, given), given, {"predict_proba": expected})
