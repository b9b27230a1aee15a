"""Pipelines that end in XGBoost are split, and answer as the whole pipeline does on the user's own table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder
from xgboost import XGBClassifier, XGBRegressor

import tabserve.train
from tabserve.bundle import BundleError
from tests.unit.bundles import records, target
from tests.unit.served import assert_serves, save

ALL = ["amount", "country", "income", "age"]
SCHEMA = """
task: {task}
record:
  - {{name: amount, type: number, min: 0}}
  - {{name: country, type: category, values: [DE, FR, IT]}}
  - {{name: income, type: number, required: false}}
  - {{name: age, type: number}}
features: [amount, country, income, age]
outputs:
  {outputs}
  reasons: {{top: 2}}
"""
BINARY = SCHEMA.format(task="binary", outputs="classes: [accept, fraud]")
REGRESSION = SCHEMA.format(task="regression", outputs="default: [predict]")
NUMBERS = ["amount", "income", "age"]


def columns(encoder: Any, numbers: Any = "passthrough", **options: Any) -> ColumnTransformer:
    return ColumnTransformer([("country", encoder, ["country"]), ("numbers", numbers, NUMBERS)], **options)


def trees(**options: Any) -> XGBClassifier:
    return XGBClassifier(n_estimators=12, max_depth=3, **options)


class AsCategory(BaseEstimator, TransformerMixin):  # type: ignore[misc]
    """Turns a column into a pandas categorical, which no matrix holds."""

    def fit(self, features: Any, target: Any = None) -> AsCategory:
        return self

    def transform(self, features: Any) -> Any:
        return features.assign(country=features.country.map({0.0: "a", 1.0: "b", 2.0: "c"}).astype("category"))


class ExplicitZeros(BaseEstimator, TransformerMixin):  # type: ignore[misc]
    """Writes zeros into a sparse matrix; XGBoost takes these for numbers, and what is left out for missing."""

    def fit(self, features: Any, target: Any = None) -> ExplicitZeros:
        return self

    def transform(self, features: Any) -> Any:
        made = features.tocsr(copy=True)
        made.data[made.data == 1.0] = 0.0
        return made


DENSE = OneHotEncoder(sparse_output=False)
SPARSE = columns(OneHotEncoder(), sparse_threshold=1.0)
PIPELINES = {
    "one-hot": make_pipeline(columns(DENSE), trees()),
    "scaled": make_pipeline(columns(DENSE, make_pipeline(SimpleImputer(), StandardScaler())), trees()),
    "ordinal": make_pipeline(columns(OrdinalEncoder()), trees()),
    "target encoder": make_pipeline(columns(TargetEncoder()), trees()),
    "frames between": make_pipeline(columns(DENSE), trees()).set_output(transform="pandas"),
    "sparse": make_pipeline(SPARSE, trees()),
    "sparse and a marker": make_pipeline(SPARSE, trees(missing=44.0)),
    "sparse made dense": make_pipeline(columns(OneHotEncoder(), sparse_threshold=0.0), trees()),
    "passthrough": Pipeline(
        [("none", None), ("columns", columns(DENSE)), ("nothing", "passthrough"), ("model", trees())]
    ),
    "nested": make_pipeline(make_pipeline(columns(DENSE), StandardScaler()), make_pipeline(SimpleImputer(), trees())),
    "search": GridSearchCV(make_pipeline(columns(DENSE), trees()), {"xgbclassifier__max_depth": [2, 3]}, cv=2),
}


@pytest.mark.parametrize("kind", PIPELINES)
def test_a_pipeline_that_ends_in_xgboost_is_taken_apart(kind: str, tmp_path: Path) -> None:
    given = records()[ALL]
    model = PIPELINES[kind].fit(given, target("binary"))
    bundle = save(model, tmp_path, BINARY, given)
    info = bundle.manifest.model
    assert bundle.manifest.preprocessor is not None
    assert info.native == "xgboost"
    assert "contributions" in info.outputs
    assert info.onnx, info.notes
    expected = {"predict_proba": model.predict_proba(given), "predict": model.predict(given)}
    assert_serves(bundle, given, expected)


def test_a_regression_is_taken_apart(tmp_path: Path) -> None:
    given = records()[ALL]
    model = make_pipeline(columns(DENSE), XGBRegressor(n_estimators=12)).fit(given, target("regression"))
    bundle = save(model, tmp_path, REGRESSION, given)
    assert bundle.manifest.model.native == "xgboost"
    assert_serves(bundle, given, {"predict": model.predict(given)})


def test_a_pipeline_of_nothing_but_xgboost_needs_no_preprocessor(tmp_path: Path) -> None:
    given = records()[["amount", "age"]]
    model = Pipeline([("none", "passthrough"), ("model", trees())]).fit(given, target("binary"))
    schema = (
        "task: binary\nrecord: [{name: amount, type: number}, {name: age, type: number}]\nfeatures: [amount, age]\n"
    )
    bundle = save(model, tmp_path, schema, given)
    assert bundle.manifest.preprocessor is None
    assert bundle.manifest.model.native == "xgboost"
    assert_serves(bundle, given, {"predict_proba": model.predict_proba(given)})


class Sampler(BaseEstimator):  # type: ignore[misc]
    """A sampler like imbalanced-learn's: it has no `transform`, and its pipeline skips it in `predict`."""

    def fit_resample(self, features: Any, target: Any) -> Any:
        return features, target


class SamplingPipeline(Pipeline):  # type: ignore[misc]
    """A pipeline whose `predict` is like imbalanced-learn's."""

    def predict_proba(self, features: Any) -> Any:
        return self.steps[-1][1].predict_proba(self.steps[0][1].transform(features))


def test_a_sampler_has_no_part_in_what_is_served(tmp_path: Path) -> None:
    """imbalanced-learn's `Pipeline.predict`: "samplers are skipped"."""
    given = records()[ALL]
    fitted = make_pipeline(columns(DENSE), trees()).fit(given, target("binary"))
    model = SamplingPipeline([fitted.steps[0], ("sampler", Sampler()), fitted.steps[1]])
    bundle = save(model, tmp_path, BINARY, given)
    assert bundle.manifest.model.native == "xgboost"
    assert_serves(bundle, given, {"predict_proba": model.predict_proba(given)})


WITHOUT_REASONS = BINARY.replace("  reasons: {top: 2}\n", "")
KEPT = {
    "categories as the steps make them": make_pipeline(
        columns(OrdinalEncoder(), verbose_feature_names_out=False).set_output(transform="pandas"),
        AsCategory(),
        trees(enable_categorical=True),
    ),
    "zeros that a sparse matrix holds": make_pipeline(SPARSE, ExplicitZeros(), trees()),
}


@pytest.mark.parametrize("kind", KEPT)
def test_a_pipeline_that_its_parts_do_not_repeat_is_kept_whole(kind: str, tmp_path: Path) -> None:
    given = records()[ALL]
    model = KEPT[kind].fit(given, target("binary"))
    trusted = [f"{__name__}.{name}" for name in ("AsCategory", "ExplicitZeros")]
    bundle = save(model, tmp_path, WITHOUT_REASONS, given, trusted=trusted)
    info = bundle.manifest.model
    assert bundle.manifest.preprocessor is None
    assert info.native == "sklearn"
    assert info.notes[0].startswith("pipeline: kept whole: ")
    assert_serves(bundle, given, {"predict_proba": model.predict_proba(given)})


def test_a_pipeline_that_can_not_be_served_is_refused_for_the_cause_in_its_parts(tmp_path: Path) -> None:
    given = records()[ALL]
    model = make_pipeline(columns(DENSE, StandardScaler()), trees()).fit(
        given.dropna(), target("binary")[given.income.notna()]
    )
    text = BINARY.replace("values: [DE, FR, IT]", "values: [DE, FR, IT, AT]")
    with pytest.raises(BundleError, match="`country` of AT, which the sample lacks"):
        save(model, tmp_path, text, given)
    assert not (tmp_path / "bundle").exists()


class Undersampler(BaseEstimator):  # type: ignore[misc]
    """A sampler like imbalanced-learn's: it changes the training data, and has no `transform`."""

    def fit_resample(self, features: Any, wanted: Any) -> tuple[Any, Any]:
        kept = (wanted == 1) | (features["age"] > 50)
        return features[kept], wanted[kept]


class Sampled(Pipeline):  # type: ignore[misc]
    """A stand-in for imbalanced-learn's pipeline of a sampler and a classifier; the library is not installed here."""

    __module__ = "imblearn.pipeline"

    def fit(self, features: Any, wanted: Any) -> Sampled:
        (_, sampler), (_, last) = self.steps
        last.fit(*sampler.fit_resample(features, wanted))
        return self

    def predict(self, features: Any) -> Any:
        return self.steps[-1][1].predict(features)

    def predict_proba(self, features: Any) -> Any:
        return self.steps[-1][1].predict_proba(features)


class CatBoostClassifier(BaseEstimator):  # type: ignore[misc]
    """A stand-in for CatBoost's classifier; the library is not installed here."""

    __module__ = "catboost.core"

    def predict(self, features: Any) -> Any:
        return features["age"] > 50


@pytest.mark.parametrize("last", [HistGradientBoostingClassifier(max_iter=3), trees()], ids=["sklearn", "xgboost"])
def test_samplers_of_imbalanced_learn_are_left_out(last: Any, tmp_path: Path) -> None:
    schema = BINARY.replace("features: [amount, country, income, age]", "features: [amount, income, age]")
    model = Sampled([("sampler", Undersampler()), ("last", last)]).fit(records()[NUMBERS], target("binary"))

    bundle = save(model, tmp_path, schema, records())

    assert_serves(bundle, records(), {"predict_proba": model.predict_proba(records()[NUMBERS])})


@pytest.mark.parametrize("model", [CatBoostClassifier(), make_pipeline(StandardScaler(), CatBoostClassifier())])
def test_catboost_is_refused_by_name(model: Any, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"CatBoost's models are not served\. Train it with XGBoost, LightGBM or"):
        save(model, tmp_path, BINARY, records())


def test_what_is_told_to_use_instead_takes_categories_as_well(tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text(BINARY)
    table = tabserve.train.features(path, records())
    model = HistGradientBoostingClassifier(max_iter=3, categorical_features="from_dtype").fit(table, target("binary"))

    schema = BINARY.replace("  reasons: {top: 2}\n", "")
    assert save(model, tmp_path / "b", schema, records()).manifest.model.native == "sklearn"
