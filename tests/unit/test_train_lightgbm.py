"""LightGBM's models are served with the library's answers about the user's own table, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tabserve import bundle as bundles
from tabserve import engines
from tabserve.bundle import Bundle, BundleError
from tabserve.engines.isolated import verify_loads
from tabserve.inference.errors import InvalidRequest
from tests.unit.bundles import resealed
from tests.unit.cores import Cores
from tests.unit.served import answers, assert_serves, save

SCHEMA = """\
task: {task}
record:
  - {{name: monthly amount, type: number, required: false}}
  - {{name: country, type: category, values: [DE, FR, IT], required: false}}
  - {{name: age, type: integer}}
features: [monthly amount, country, age]
outputs: {outputs}
"""
NUMBERS = """\
task: {task}
record: [{{name: amount, type: number, required: false}}, {{name: age, type: number}}]
features: [amount, age]
outputs: {outputs}
"""
SMALL = {"n_estimators": 8, "num_leaves": 7, "verbosity": -1, "random_state": 0}
RATES = ("cross_entropy", "cross_entropy_lambda")
COUNT = 200


def records() -> pd.DataFrame:
    """Records with zero and missing amounts, missing countries, and categories in their own order."""
    random = np.random.default_rng(5)
    amount = random.normal(0, 50, COUNT).round(1)
    amount[::6], amount[1::7] = 0.0, np.nan
    country = random.choice(["IT", "DE", "FR"], COUNT).astype(object)
    country[::9] = None
    return pd.DataFrame(
        {
            "monthly amount": amount,
            "country": pd.Categorical(country, ["IT", "DE", "FR"]),
            "age": random.integers(18, 90, COUNT),
        }
    )


def numbers() -> pd.DataFrame:
    given = records()
    return pd.DataFrame({"amount": given["monthly amount"], "age": given.age.astype(float)})


def value(given: pd.DataFrame) -> Any:
    amount = given["monthly amount" if "country" in given else "amount"]
    origin = (given.country == "IT") * 40 if "country" in given else 0
    return amount.fillna(30.0) + origin + given.age / 4 + (amount == 0) * 25


def classes(given: pd.DataFrame, count: int) -> Any:
    return pd.qcut(value(given), count, labels=False)


def saved(model: Any, folder: Path, task: str, outputs: str = "{}", schema: str = SCHEMA) -> Bundle:
    sample = records() if schema is SCHEMA else numbers()
    return save(model, folder, schema.format(task=task, outputs=outputs), sample)


def asked(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype({"country": object}) if "country" in frame else frame


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"boosting_type": "dart"},
        {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.7},
        {"zero_as_missing": True},
        {"use_missing": False},
        {"is_unbalance": True},
    ],
)
@pytest.mark.parametrize("names", [["no", "yes"], [0, 1], [False, True]])
def test_a_classifiers_records_are_answered_as_it_answers(
    tmp_path: Path, options: dict[str, Any], names: list[Any]
) -> None:
    target = np.array(names)[classes(records(), 2)]
    model = lightgbm.LGBMClassifier(**SMALL, **options).fit(records(), target)
    bundle = saved(model, tmp_path, "binary")
    expected = {"predict_proba": model.predict_proba(records()), "margin": model.predict(records(), raw_score=True)}
    assert_serves(bundle, asked(records()), expected)
    labels = answers(bundle, asked(records()), ["predict"])["lightgbm"]["predict"]
    assert labels.tolist() == model.predict(records()).tolist()


@pytest.mark.parametrize("objective", ["multiclass", "multiclassova"])
def test_many_classes(tmp_path: Path, objective: str) -> None:
    model = lightgbm.LGBMClassifier(**SMALL, objective=objective).fit(records(), classes(records(), 3))
    bundle = saved(model, tmp_path, "multiclass")
    assert_serves(bundle, asked(records()), {"predict_proba": model.predict_proba(records())})
    contributions = answers(bundle, asked(records()), ["contributions", "margin"])["lightgbm"]
    assert contributions["contributions"].shape == (COUNT, 3, 4)
    np.testing.assert_allclose(contributions["contributions"].sum(axis=2), contributions["margin"], atol=1e-9)


@pytest.mark.parametrize(
    "objective",
    ["regression", "regression_l1", "huber", "fair", "poisson", "quantile", "mape", "gamma", "tweedie", *RATES],
)
def test_regressions_and_rates(tmp_path: Path, objective: str) -> None:
    target = value(records()) - value(records()).min() + 1
    rate = target / target.max()
    target = rate if objective in RATES else target
    model = lightgbm.LGBMRegressor(**SMALL, objective=objective).fit(records(), target)
    assert_serves(
        saved(model, tmp_path, "regression"), asked(records()), {"predict": np.asarray(model.predict(records()))}
    )


def test_contributions_are_lightgbms_own(tmp_path: Path) -> None:
    model = lightgbm.LGBMClassifier(**SMALL).fit(records(), classes(records(), 2))
    found = answers(saved(model, tmp_path, "binary"), asked(records()), ["contributions", "margin"])["lightgbm"]
    np.testing.assert_allclose(found["contributions"], model.predict(records(), pred_contrib=True), atol=1e-12)
    np.testing.assert_allclose(found["contributions"].sum(axis=1), found["margin"], atol=1e-9)


def test_a_booster_answers_with_the_rounds_it_would_itself(tmp_path: Path) -> None:
    train = lightgbm.Dataset(records()[:150], classes(records(), 2)[:150])
    valid = lightgbm.Dataset(records()[150:], classes(records(), 2)[150:], reference=train)
    options = {"objective": "binary", "verbosity": -1, "num_leaves": 15, "learning_rate": 0.5}
    stop = lightgbm.early_stopping(2, verbose=False)
    booster = lightgbm.train(options, train, 60, valid_sets=[valid], callbacks=[stop], keep_training_booster=True)
    assert booster.best_iteration < booster.current_iteration()
    bundle = saved(booster, tmp_path, "binary")
    probability = booster.predict(records())
    assert_serves(bundle, asked(records()), {"predict_proba": np.column_stack([1 - probability, probability])})


def test_a_file_that_lightgbm_wrote(tmp_path: Path) -> None:
    model = lightgbm.LGBMClassifier(**SMALL).fit(records(), classes(records(), 2))
    model.booster_.save_model(tmp_path / "own.txt")
    bundle = saved(str(tmp_path / "own.txt"), tmp_path / "saved", "binary")
    assert_serves(bundle, asked(records()), {"predict_proba": model.predict_proba(records())})
    (tmp_path / "own.txt").write_text((tmp_path / "own.txt").read_text()[:900])
    with pytest.raises(BundleError, match=r"own\.txt: not a model that LightGBM can read.* Give another file"):
        saved(tmp_path / "own.txt", tmp_path / "saved", "binary")


def test_a_matrix_without_names(tmp_path: Path) -> None:
    matrix = numbers().to_numpy()
    model = lightgbm.LGBMClassifier(**SMALL).fit(matrix, classes(numbers(), 2))
    assert_serves(
        saved(model, tmp_path, "binary", schema=NUMBERS), numbers(), {"predict_proba": model.predict_proba(matrix)}
    )


@pytest.mark.parametrize("order", [["DE", "FR", "IT"], ["IT", "DE", "FR"]])
def test_categories_as_numbers_are_found_in_their_order_or_told(tmp_path: Path, order: list[str]) -> None:
    numbered = pd.Categorical(records().country, order).codes
    matrix = records().assign(country=np.where(numbered < 0, np.nan, numbered)).to_numpy(float)
    model = lightgbm.LGBMClassifier(**SMALL).fit(matrix, classes(records(), 2), categorical_feature=[1])
    sample, schema = asked(records()), SCHEMA.format(task="binary", outputs="{}")
    expected = {"predict_proba": model.predict_proba(matrix)}
    told = save(model, tmp_path / "told", schema, sample, codes={"country": order})
    assert_serves(told, sample, expected)
    with pytest.raises(BundleError, match=r"Pass codes=\{"):  # not the training data
        save(model, tmp_path / "part", schema, sample[: COUNT // 2])
    assert_serves(save(model, tmp_path / "found", schema, records()), sample, expected)


@pytest.mark.parametrize("fact", ["missing", "rounds"])
def test_what_only_boosters_of_xgboost_need_telling(tmp_path: Path, fact: str) -> None:
    model = lightgbm.LGBMClassifier(**SMALL).fit(records(), classes(records(), 2))
    with pytest.raises(BundleError, match="is for an XGBoost Booster"):
        save(model, tmp_path, SCHEMA.format(task="binary", outputs="{}"), records(), **{fact: 1})


def test_at_the_end_of_a_pipeline(tmp_path: Path) -> None:
    before = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["country"]), (StandardScaler(), ["amount", "age"])
    )
    given = asked(records()).rename(columns={"monthly amount": "amount"})
    given = given.assign(country=given.country.where(given.country.notna(), "DE"))
    model = make_pipeline(before, lightgbm.LGBMClassifier(**SMALL)).fit(given, classes(records(), 2))
    schema = SCHEMA.replace("[DE, FR, IT], required: false", "[DE, FR, IT]").replace("monthly amount", "amount")
    bundle = save(model, tmp_path, schema.format(task="binary", outputs="{}"), given)
    assert bundle.manifest.model.native == "lightgbm"
    assert bundle.manifest.preprocessor is not None
    assert_serves(bundle, given, {"predict_proba": model.predict_proba(given)})


def test_decisions_and_reasons(tmp_path: Path) -> None:
    model = lightgbm.LGBMClassifier(**SMALL).fit(records(), classes(records(), 2))
    bands = "{score: late, bands: [{from: 0.5, label: call}, {from: 0, label: wait}]}"
    outputs = f"{{classes: [on time, late], decision: {bands}, reasons: {{top: 2, for: [call]}}}}"
    made = Cores(saved(model, tmp_path, "binary", outputs)).predictions(asked(records()))
    probability = model.predict_proba(records())[:, 1]
    assert [each["decision"] for each in made] == ["call" if each >= 0.5 else "wait" for each in probability]
    assert {bool(each["reasons"]) for each in made if each["decision"] == "wait"} == {False}
    pushed = model.predict(records(), pred_contrib=True)[:, :-1].argmax(axis=1)
    names = np.array(["monthly amount", "country", "age"])[pushed]
    called = [at for at, each in enumerate(made) if each["decision"] == "call"]
    assert [made[at]["reasons"][0] for at in called] == names[called].tolist()


def test_trees_with_linear_leaves_give_no_contributions(tmp_path: Path) -> None:
    given = numbers().fillna(0.0)
    model = lightgbm.LGBMRegressor(**SMALL, linear_tree=True).fit(given, value(given))
    bundle = save(model, tmp_path, NUMBERS.format(task="regression", outputs="{}"), given)
    assert bundle.manifest.model.outputs == ("predict", "margin")
    assert_serves(bundle, given, {"predict": np.asarray(model.predict(given))})


def _ranker() -> Any:
    return lightgbm.LGBMRanker(**SMALL).fit(records(), classes(records(), 3), group=[COUNT])


def _of_two_categories() -> Any:
    given = records().assign(age=lambda frame: frame.age.astype("category"))
    return lightgbm.LGBMClassifier(**SMALL).fit(given, classes(records(), 2))


def _of_numbered_categories() -> Any:
    given = records().assign(country=lambda frame: pd.Categorical(frame.country.cat.codes))
    return lightgbm.LGBMClassifier(**SMALL).fit(given, classes(records(), 2))


@pytest.mark.parametrize(
    ("model", "task", "problem"),
    [
        (_ranker, "regression", r"ranks records \(lambdarank\)"),
        (lambda: lightgbm.LGBMRegressor(**SMALL).fit(records(), value(records())), "binary", "is a regression"),
        (lambda: lightgbm.LGBMClassifier(**SMALL).fit(records(), classes(records(), 3)), "binary", "is a multiclass"),
        (_of_two_categories, "binary", "was trained on 2 categories, the schema has 1"),
        (_of_numbered_categories, "binary", "the model was never trained on DE, FR, IT"),
        (
            lambda: lightgbm.LGBMClassifier(**SMALL).fit(records()[["age", "country"]], classes(records(), 2)),
            "binary",
            "expected the schema's 3 features, got 2",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, model: Callable[[], Any], task: str, problem: str) -> None:
    with pytest.raises(BundleError, match=problem):
        saved(model(), tmp_path, task)


def test_a_category_it_was_not_trained_on_is_refused(tmp_path: Path) -> None:
    model = lightgbm.LGBMClassifier(**SMALL).fit(records(), classes(records(), 2))
    bundle = saved(model, tmp_path, "binary")
    with pytest.raises(InvalidRequest, match="country"):
        answers(bundle, [{"country": "ES", "age": 40}], ["predict"])


@pytest.mark.parametrize("change", [lambda text: text[: len(text) // 2], lambda text: b"tree\nversion=v4\n" * 20])
def test_a_malformed_file_ends_no_process(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    model = lightgbm.LGBMClassifier(**SMALL).fit(numbers(), classes(numbers(), 2))
    folder = saved(model, tmp_path, "binary", schema=NUMBERS).path
    (folder / "model.txt").write_bytes(change((folder / "model.txt").read_bytes()))
    resealed(folder)
    finding = bundles.check(folder)[-1]
    assert (finding.check, finding.ok) == ("model", False)
    loaded = bundles.load(folder)
    with pytest.raises(BundleError, match=r"model\.txt"):
        _load(loaded)


def _load(bundle: Bundle) -> None:
    verify_loads(bundle)
    engines.load(bundle)
