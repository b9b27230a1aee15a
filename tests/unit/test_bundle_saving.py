from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.base import BaseEstimator
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier, XGBRegressor, XGBRFClassifier

import tabserve.train
from tabserve import engines
from tabserve.arrays import rows, take
from tabserve.bundle import Bundle, BundleError
from tabserve.bundle.histogram import of_numbers
from tabserve.engines import Engine
from tabserve.engines.contributions.trees import decompose
from tabserve.engines.selection import open_engine
from tests.unit.bundles import ROWS, records, saved, schema, target

NUMBERS = ("amount", "age")
MISSING = ("amount", "income", "age")
ALL = ("amount", "country", "income", "age")


def mixed(final: Any) -> Any:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["country"]),
        (numbers, ["amount", "income", "age"]),
    )
    return make_pipeline(columns, final)


def own_answer(model: Any, path: Path) -> Any:
    features = tabserve.train.features(path, records())
    if hasattr(model, "predict_proba"):
        return model.predict_proba(features)
    return model.predict(features)


def xgboost_forest() -> XGBRFClassifier:
    with warnings.catch_warnings():  # XGBoost 3.4 plans to remove it, but still has it
        warnings.filterwarnings("ignore", "`XGBRFClassifier` is deprecated", FutureWarning)
        return XGBRFClassifier(n_estimators=20)


MODELS = {
    "xgboost": (XGBClassifier(n_estimators=20), "binary", NUMBERS),
    "xgboost, missing values": (XGBClassifier(n_estimators=20), "binary", MISSING),
    "xgboost, categories": (XGBClassifier(n_estimators=20, enable_categorical=True), "binary", ALL),
    "xgboost, classes": (XGBClassifier(n_estimators=20), "multiclass", MISSING),
    "xgboost, classes and categories": (XGBClassifier(n_estimators=9, enable_categorical=True), "multiclass", ALL),
    "xgboost regression": (XGBRegressor(n_estimators=20), "regression", MISSING),
    "xgboost counts": (XGBRegressor(n_estimators=20, objective="count:poisson"), "regression", NUMBERS),
    "xgboost forest": (xgboost_forest(), "binary", NUMBERS),
    "xgboost dart": (XGBClassifier(n_estimators=20, booster="dart"), "binary", NUMBERS),
    "xgboost linear": (XGBClassifier(n_estimators=20, booster="gblinear"), "binary", NUMBERS),
    "logistic regression": (LogisticRegression(), "binary", NUMBERS),
    "logistic regression, mixed": (mixed(LogisticRegression()), "binary", ALL),
    "logistic regression, classes": (mixed(LogisticRegression()), "multiclass", ALL),
    "ridge": (mixed(Ridge()), "regression", ALL),
    "forest": (RandomForestClassifier(20, random_state=0), "binary", NUMBERS),
    "forest, mixed": (mixed(RandomForestClassifier(20, random_state=0)), "multiclass", ALL),
    "forest regression": (RandomForestRegressor(20, random_state=0), "regression", NUMBERS),
    "extra trees": (ExtraTreesClassifier(20, random_state=0), "binary", NUMBERS),
    "tree": (DecisionTreeClassifier(max_depth=4), "binary", NUMBERS),
    "gradient boosting": (GradientBoostingClassifier(n_estimators=20), "multiclass", NUMBERS),
    "histogram gradient boosting": (HistGradientBoostingClassifier(max_iter=20), "binary", MISSING),
    "histogram gradient boosting, regression": (HistGradientBoostingRegressor(max_iter=20), "regression", MISSING),
    "histogram gradient boosting, classes": (mixed(HistGradientBoostingClassifier(max_iter=20)), "multiclass", ALL),
    "support vectors": (make_pipeline(StandardScaler(), SVC()), "multiclass", NUMBERS),
    "linear support vectors": (make_pipeline(StandardScaler(), LinearSVC()), "binary", NUMBERS),
    "naive Bayes": (GaussianNB(), "binary", NUMBERS),
}


@pytest.mark.filterwarnings("ignore:.*`booster=(dart|gblinear)` is deprecated:UserWarning")  # from XGBoost 3.4 on
@pytest.mark.parametrize("kind", MODELS)
def test_what_is_served_is_what_the_library_answers(kind: str, tmp_path: Path) -> None:
    model, task, fields = MODELS[kind]
    bundle = saved(model, tmp_path, task, fields=fields)
    expected = own_answer(model, tmp_path / "schema.yaml")
    name = "predict_proba" if hasattr(model, "predict_proba") else "predict"
    engine_set, native = engines.load(bundle), engines.load_native(bundle, 1)
    assert not engine_set.dropped
    for count in (1, 7, ROWS):
        features = take(bundle.reference.features, slice(0, count))
        for engine in (engine_set.select(count, [name]), native):
            answers = engine.run(features, [name, "predict"])
            np.testing.assert_allclose(answers[name], expected[:count], rtol=1e-6, atol=1e-6)
            assert answers["predict"].shape == (count,)
    assert_shapes(native, bundle, len(fields))


def assert_shapes(native: Engine, bundle: Bundle, fields: int) -> None:
    classes = len(bundle.manifest.model.classes)
    groups: tuple[int, ...] = (5, classes) if classes > 2 else (5,)
    shapes = {"predict": (5,), "predict_proba": (5, classes), "margin": groups, "contributions": (*groups, fields + 1)}
    answers = native.run(take(bundle.reference.features, slice(0, 5)), sorted(native.outputs))
    assert {name: array.shape for name, array in answers.items()} == {name: shapes[name] for name in native.outputs}


def test_a_booster_is_served_with_its_best_iteration(tmp_path: Path) -> None:
    path = schema(tmp_path, fields=MISSING)
    features, wanted = tabserve.train.features(path, records()), target("binary")
    train, test = xgboost.DMatrix(features[:500], wanted[:500]), xgboost.DMatrix(features[500:], 1 - wanted[500:])
    parameters = {"objective": "binary:logistic", "eval_metric": "logloss"}
    booster = xgboost.train(parameters, train, 40, evals=[(test, "test")], early_stopping_rounds=5, verbose_eval=False)
    assert booster.best_iteration + 1 < booster.num_boosted_rounds()
    bundle = tabserve.train.save(
        booster, tmp_path / "b", name="m", version="1", schema=path, sample=records(), format="json", rounds="best"
    )
    assert bundle.manifest.model.file == "model.json"
    expected = booster.predict(xgboost.DMatrix(features), iteration_range=(0, booster.best_iteration + 1))
    answers = engines.load(bundle).select(ROWS, ["predict_proba"]).run(bundle.reference.features, ["predict_proba"])
    np.testing.assert_allclose(answers["predict_proba"][:, 1], expected, atol=1e-6)


def test_a_booster_that_answers_classes_is_served_with_probabilities(tmp_path: Path) -> None:
    path = schema(tmp_path, "multiclass")
    data = xgboost.DMatrix(tabserve.train.features(path, records()), target("multiclass"))
    booster = xgboost.train({"objective": "multi:softmax", "num_class": 3}, data, 10)
    bundle = tabserve.train.save(booster, tmp_path / "b", name="m", version="1", schema=path, sample=records())
    answers = engines.load_native(bundle, 1).run(bundle.reference.features, ["predict", "predict_proba"])
    np.testing.assert_array_equal(answers["predict"], booster.predict(data))
    np.testing.assert_array_equal(answers["predict_proba"].argmax(axis=1), answers["predict"])


def test_categories_are_coded_in_the_order_the_model_was_trained_with(tmp_path: Path) -> None:
    path = schema(tmp_path, fields=ALL)
    features = tabserve.train.features(path, records())
    features["country"] = features.country.cat.set_categories(["IT", "DE", "FR"])
    model = XGBClassifier(n_estimators=20, enable_categorical=True).fit(features, target("binary"))
    bundle = tabserve.train.save(model, tmp_path / "b", name="m", version="1", schema=path, sample=records())
    assert bundle.manifest.model.features[1].values == ("IT", "DE", "FR")
    answers = engines.load(bundle).select(ROWS, ["predict_proba"]).run(bundle.reference.features, ["predict_proba"])
    np.testing.assert_allclose(answers["predict_proba"], model.predict_proba(features), atol=1e-6)


def test_class_values_are_the_models_own(tmp_path: Path) -> None:
    path = schema(tmp_path)
    model = LogisticRegression().fit(
        tabserve.train.features(path, records()), target("binary").map({0: "ok", 1: "bad"})
    )
    bundle = tabserve.train.save(model, tmp_path / "b", name="m", version="1", schema=path, sample=records())
    assert bundle.manifest.model.classes == ("bad", "ok")
    answers = engines.load(bundle).select(1, ["predict"]).run(bundle.reference.features, ["predict"])
    assert set(answers["predict"]) == {"bad", "ok"}
    assert answers["predict"].dtype == object


def test_a_sample_may_be_columns_or_records(tmp_path: Path) -> None:
    path = schema(tmp_path, fields=MISSING)
    frame = records()
    columns = {name: frame[name].tolist() for name in frame}
    one_by_one: list[dict[str, Any]] = [
        {str(name): None if value != value else value for name, value in row.items()}
        for row in frame.to_dict("records")
    ]
    first, *others = (tabserve.train.features(path, sample) for sample in (frame, columns, one_by_one))
    for other in others:
        pd.testing.assert_frame_equal(first, other)


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ([0.0] * 30 + [1.0] * 70, [30, 70]),
        ([7.0, 7.0], [2]),
        ([np.finfo(np.float64).max] * 2, [2]),
        ([0.0] * 60 + [1.0, 2.0] * 20, [60, 20, 20]),
    ],
)
def test_a_frequent_number_has_a_bin_of_its_own(values: list[float], counts: list[int]) -> None:
    found = of_numbers(np.array([*values, np.nan]))

    assert found.counts[found.counts > 0].tolist() == counts
    assert len(found.bounds) == len(found.counts) + 1
    assert found.missing == 1


def test_the_reference_keeps_up_to_a_thousand_rows_and_the_histograms_all(tmp_path: Path) -> None:
    path = schema(tmp_path, fields=ALL)
    many = pd.concat([records()] * 3, ignore_index=True)
    model = XGBClassifier(n_estimators=3, enable_categorical=True)
    model.fit(tabserve.train.features(path, many), pd.concat([target("binary")] * 3))
    bundle = tabserve.train.save(model, tmp_path / "b", name="m", version="1", schema=path, sample=many)
    reference = bundle.reference
    assert rows(reference.features) == 1000
    assert {len(column) for column in reference.records.values()} == {1000}
    assert {name: int(one.counts.sum()) + one.missing for name, one in reference.histograms.items()} == dict.fromkeys(
        ALL, 3 * ROWS
    )
    assert reference.histograms["income"].missing == 3 * int(records().income.isna().sum())
    assert reference.histograms["country"].bounds.tolist() == ["DE", "FR", "IT"]


def refused(match: str, model: Any, folder: Path, task: str = "binary", **options: Any) -> None:
    with pytest.raises(BundleError, match=match):
        saved(model, folder, task, **options)
    assert not (folder / "bundle").exists()
    assert [one.name for one in folder.iterdir()] == ["schema.yaml"]


class Regressor(BaseEstimator):  # type: ignore[misc]
    """A regressor of a type that nobody vouches for."""

    def fit(self, features: Any, target: Any) -> Regressor:
        self.n_features_in_ = features.shape[1]
        return self

    def predict(self, features: Any) -> Any:
        return np.zeros(len(features))


@pytest.mark.filterwarnings("ignore:.*`booster=gblinear` is deprecated:UserWarning")
def test_what_does_not_fit_is_refused_with_the_remedy(tmp_path: Path) -> None:
    linear = LogisticRegression()
    refused("task multiclass: got a classifier of 2 classes", SomeClasses(), tmp_path, "multiclass")
    refused(
        "task regression: expected a regressor, or a Booster, got Binary with binary:logistic",
        SomeClasses(xgb=True),
        tmp_path,
        "regression",
    )
    refused("fails on records the schema permits: Input X contains NaN", ImputedLinear(), tmp_path, fields=MISSING)
    refused("types that are not trusted: tests.unit.test_bundle_saving.Regressor", Regressor(), tmp_path, "regression")
    refused("types that are not trusted: .*<lambda>", make_pipeline(FunctionTransformer(lambda x: x), linear), tmp_path)
    refused("loading a joblib file runs its author's code", linear, tmp_path, format="joblib")
    refused("expected skops or joblib for sklearn, got ubj", linear, tmp_path, format="ubj")
    refused(
        "needs contributions, which this model does not give", GaussianNB(), tmp_path, extra="  reasons: {top: 1}\n"
    )
    refused("`amount`: expected a number of at least 0, got -1", linear, tmp_path, sample=[{"amount": -1, "age": 3}])
    refused("expected records, got none", linear, tmp_path, sample=[])
    weights = XGBClassifier(n_estimators=2, booster="gblinear")
    refused("onnxruntime can't be used", weights, tmp_path, engine="onnxruntime")


class SomeClasses:
    """Stands for a model that learns two classes whatever it is given."""

    def __new__(cls, *, xgb: bool = False) -> Any:
        class Binary(XGBClassifier if xgb else LogisticRegression):  # type: ignore[misc]
            def fit(self, features: Any, target: Any) -> Any:
                return super().fit(features, (target > target.median()).astype(int))

        Binary.__module__ = "xgboost.sklearn" if xgb else __name__
        return Binary()


class ImputedLinear:
    """Stands for a model that was trained on records without missing values."""

    def __new__(cls) -> Any:
        class Complete(LogisticRegression):  # type: ignore[misc]
            def fit(self, features: Any, target: Any) -> Any:
                return super().fit(features.fillna(0), target)

        return Complete()


def test_features_in_another_order_are_refused(tmp_path: Path) -> None:
    path = schema(tmp_path)
    features = tabserve.train.features(path, records())[["age", "amount"]]
    for model in (LinearRegression(), XGBRegressor(n_estimators=2)):
        model.fit(features, target("regression"))
        path = schema(tmp_path, "regression")
        with pytest.raises(BundleError, match=r"expected the schema's features \[amount, age\], got \[age, amount\]"):
            tabserve.train.save(model, tmp_path / "b", name="m", version="1", schema=path, sample=records())


@pytest.mark.parametrize("name", ["", "my model", "a/b", ".a", "a-", "ü", "a" * 61])
def test_a_name_that_no_path_could_hold_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match=r"^name: expected 1 to 60 characters .*, got .* Give another name\.$"):
        saved(LogisticRegression(), tmp_path, name=name)
    assert not (tmp_path / "bundle").exists()


def test_an_older_bundle_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    first = saved(LogisticRegression(), tmp_path)
    second = saved(LogisticRegression(C=0.1), tmp_path, version="2")
    assert (second.path, second.manifest.version) == (first.path, "2")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["bundle", "schema.yaml"]
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("dear")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        tabserve.train.save(
            LogisticRegression(),
            tmp_path / "home",
            name="m",
            version="1",
            schema=second.file("schema.yaml"),
            sample=records(),
        )
    assert (tmp_path / "home" / "letter").read_text() == "dear"


@pytest.mark.parametrize(
    ("model", "task"),
    [
        (HistGradientBoostingClassifier(max_iter=30), "binary"),
        (HistGradientBoostingClassifier(max_iter=30), "multiclass"),
        (HistGradientBoostingRegressor(max_iter=30), "regression"),
        (HistGradientBoostingRegressor(max_iter=30, loss="poisson"), "regression"),
    ],
)
def test_histogram_gradient_boosting_is_converted_with_its_double_precision(
    model: Any, task: str, tmp_path: Path
) -> None:
    bundle: Bundle = saved(model, tmp_path, task, fields=MISSING)
    rows = beside_thresholds(model, len(MISSING))
    name = "predict" if task == "regression" else "predict_proba"
    assert "onnxruntime" in {part.engine for part in bundle.manifest.model.engines}
    answers = open_engine(bundle, "onnxruntime", 1).run(rows, ["predict", name])
    given = pd.DataFrame(rows, columns=list(MISSING))
    for output in ("predict", name):
        np.testing.assert_allclose(answers[output], getattr(model, output)(given), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_histogram_gradient_boosting_answers_a_row_the_same_wherever_it_stands(task: str, tmp_path: Path) -> None:
    bundle = saved(HistGradientBoostingClassifier(max_iter=30), tmp_path, task, fields=MISSING)
    engine, features = open_engine(bundle, "onnxruntime", 1), bundle.reference.features
    assert engine.row_independent
    whole = engine.run(features, ["predict_proba"])["predict_proba"]
    alone = [engine.run(take(features, slice(row, row + 1)), ["predict_proba"]) for row in range(ROWS)]
    np.testing.assert_array_equal(np.concatenate([answer["predict_proba"] for answer in alone]), whole)


def beside_thresholds(model: Any, width: int) -> Any:
    """Rows with a value at, just below and just above each threshold of a model, and with values missing."""
    random = np.random.default_rng(3)
    cuts = [
        (feature, value)
        for tree in decompose(model)
        for feature, value in zip(tree.feature[tree.left >= 0], tree.threshold[tree.left >= 0], strict=True)
        if np.isfinite(value)
    ]
    rows = random.choice([np.nan, 1.0, 50.0, 3000.0], (3 * len(cuts), width))
    for at, (feature, value) in enumerate(cuts):
        rows[3 * at : 3 * at + 3, feature] = [value, np.nextafter(value, -np.inf), np.nextafter(value, np.inf)]
    return rows


def test_histogram_gradient_boosting_with_categories_stays_in_scikit_learn(tmp_path: Path) -> None:
    model = HistGradientBoostingClassifier(max_iter=10, categorical_features=[1])
    bundle = saved(model, tmp_path, trusted=("functools.partial", "sklearn.utils.validation.check_array"))
    assert bundle.manifest.model.onnx is None
    assert any("categorical splits" in note for note in bundle.manifest.model.notes)


@pytest.mark.parametrize("scoring", ["accuracy", "roc_auc", None])
def test_histogram_boosting_that_stopped_early_by_a_score_is_saved_as_it_is(scoring: Any, tmp_path: Path) -> None:
    model = HistGradientBoostingClassifier(max_iter=5, early_stopping=True, scoring=scoring, random_state=0)

    saved(model, tmp_path)

    assert model._scorer is not None
