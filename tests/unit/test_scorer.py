"""The Scorer decides as the services do, and names every row that it cannot decide."""

from __future__ import annotations

import datetime
import pickle
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from xgboost import XGBClassifier, XGBRegressor

import tabserve.train
from tabserve.bundle import Bundle, BundleError
from tabserve.inference.errors import InvalidRequest
from tabserve.scoring import Scorer
from tests.unit.bundles import records, resealed, saved
from tests.unit.cores import Cores

ALL = ("amount", "country", "income", "age")
BANDS = """\
  decision: {score: fraud, bands: [{from: 0.6, label: block}, {from: 0, label: accept}]}
  reasons: {top: 2}
"""
MODELS: dict[str, tuple[Any, str, tuple[str, ...], dict[str, Any]]] = {
    "xgboost": (XGBClassifier(n_estimators=20, enable_categorical=True), "binary", ALL, {"extra": BANDS}),
    "xgboost regression": (XGBRegressor(n_estimators=20), "regression", ("amount", "income"), {}),
    "histogram": (HistGradientBoostingClassifier(max_iter=10), "multiclass", ("amount", "income", "age"), {}),
    "pipeline": (
        make_pipeline(
            make_column_transformer((OneHotEncoder(), ["country"]), (StandardScaler(), ["amount", "age"])),
            LogisticRegression(),
        ),
        "binary",
        ("amount", "country", "age"),
        {"extra": BANDS},
    ),
    "linear regression": (make_pipeline(StandardScaler(), LinearRegression()), "regression", ("amount", "age"), {}),
    "naive Bayes": (GaussianNB(), "binary", ("amount", "age"), {}),
}


def batch(frame: pd.DataFrame, *fields: str) -> pa.RecordBatch:
    return pa.RecordBatch.from_pandas(frame[list(fields)], preserve_index=False)


def alone(bundle: Bundle, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The services' answers about every row, sent in its own request."""
    cores = Cores(bundle)
    return [cores.predictions(frame[at : at + 1])[0] for at in range(len(frame))]


def answered(scorer: Scorer, frame: pd.DataFrame) -> tuple[list[dict[str, Any]], set[tuple[str, int]]]:
    """The answers to rows that are all decided, and by which engines for how many rows."""
    decided, errors = scorer.score(batch(frame, *frame.columns))
    assert errors.num_rows == 0
    rows = decided.to_pylist()
    assert [row.pop("row") for row in rows] == list(range(len(frame)))
    made = {(row.pop("engine"), row.pop("rows")) for row in rows}
    return rows, made


@pytest.mark.parametrize("kind", ["xgboost", "xgboost regression", "histogram"])
def test_a_row_is_decided_as_alone_in_a_request_to_the_services(kind: str, tmp_path: Path) -> None:
    model, task, fields, options = MODELS[kind]
    bundle = saved(model, tmp_path, task, fields=fields, **options)
    frame = records()[list(fields)][:80]
    rows, made = answered(Scorer(bundle.path), frame)
    assert {count for _, count in made} == {1}
    assert rows == alone(bundle, frame)


@pytest.mark.parametrize("kind", ["pipeline", "linear regression", "naive Bayes"])
def test_rows_that_depend_on_each_other_are_decided_as_together_in_a_request(kind: str, tmp_path: Path) -> None:
    model, task, fields, options = MODELS[kind]
    bundle = saved(model, tmp_path, task, fields=fields, engine="sklearn", **options)
    frame = records()[list(fields)][:80]
    rows, made = answered(Scorer(bundle.path), frame)
    assert made == {("sklearn", 80)}
    assert rows == Cores(bundle).predictions(frame)


def test_with_two_engines_in_the_plan_it_is_the_one_for_one_row(tmp_path: Path) -> None:
    bundle = saved(XGBClassifier(n_estimators=20), tmp_path, fields=("amount", "income"), extra=BANDS)
    plan = [{"engine": "onnxruntime", "from_rows": 0}, {"engine": "xgboost", "from_rows": 2}]
    resealed(bundle.path, lambda contents: contents["model"].update(engines=plan))
    scorer = Scorer(bundle.path)
    frame = records()[["amount", "income"]][:50]
    rows, made = answered(scorer, frame)
    assert made == {("onnxruntime", 1)}
    assert rows == alone(scorer.bundle, frame)
    rows, made = answered(Scorer(bundle.path, together=True), frame)
    assert made == {("xgboost", 50)}
    assert rows == Cores(scorer.bundle).predictions(frame)


def test_several_targets_are_answered_by_name(tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text(
        "task: regression\nrecord: [{name: amount, type: number}, {name: age, type: number}]\n"
        "features: [amount, age]\noutputs: {targets: [cost, days]}\n"
    )
    frame = records()[["amount", "age"]]
    model = LinearRegression().fit(tabserve.train.features(path, frame), np.c_[frame.amount, frame.age + 1])
    bundle = tabserve.train.save(model, tmp_path / "bundle", name="m", version="1", schema=path, sample=frame)
    decided = Scorer(bundle.path).score(batch(frame[:5], "amount", "age")).decided
    assert [row["predict"] for row in decided.to_pylist()] == [one["predict"] for one in alone(bundle, frame[:5])]


def test_an_anomaly_is_scored_and_labelled(tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text("task: anomaly\nrecord: [{name: amount, type: number}]\nfeatures: [amount]\n")
    frame = records()[["amount"]]
    model = IsolationForest(n_estimators=10, random_state=0).fit(tabserve.train.features(path, frame))
    bundle = tabserve.train.save(model, tmp_path / "bundle", name="m", version="1", schema=path, sample=frame)
    expected = alone(bundle, frame[:5])
    decided = Scorer(bundle.path).score(batch(frame[:5], "amount")).decided.to_pylist()
    assert [{name: row[name] for name in expected[0]} for row in decided] == expected


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Every type of field, an id and an audited field."""
    folder = tmp_path_factory.mktemp("scorer")
    path = folder / "schema.yaml"
    path.write_text("""\
task: binary
id: payment
record:
  - {name: amount, type: number, min: 0, max: 1000}
  - {name: parts, type: integer, required: false, default: 1}
  - {name: web, type: boolean, required: false, default: false}
  - {name: country, type: category, values: [DE, FR, other], unknown: other, required: false}
  - {name: channel, type: category, values: [app, shop]}
  - {name: opened, type: timestamp}
  - {name: paid, type: timestamp, required: false, default: now}
  - {name: sex, type: category, values: [f, m, x], use: audit, required: false}
features: [amount, parts, web, country, channel, {name: days, days_between: [opened, paid]}]
outputs:
  classes: [good, bad]
  decision: {score: bad, bands: [{from: 0.5, label: refuse}, {from: 0, label: accept}]}
""")
    frame = sample(400)
    model = XGBClassifier(n_estimators=10, enable_categorical=True)
    model.fit(tabserve.train.features(path, frame), (frame.amount > 500).astype(int))
    return tabserve.train.save(model, folder / "bundle", name="m", version="1", schema=path, sample=frame)


def sample(count: int) -> pd.DataFrame:
    random = np.random.default_rng(5)
    opened = np.datetime64("2026-01-01", "s") + random.integers(0, 10**7, count).astype("timedelta64[s]")
    return pd.DataFrame(
        {
            "amount": random.uniform(0, 1000, count).round(2),
            "parts": random.integers(1, 5, count),
            "web": random.random(count) < 0.5,
            "country": random.choice(["DE", "FR", "other"], count),
            "channel": random.choice(["app", "shop"], count),
            "opened": opened,
            "paid": opened + np.timedelta64(30, "D"),
            "sex": random.choice(["f", "m", "x"], count),
        }
    )


NOW = 1_800_000_000.25
GOOD = {"amount": 10.5, "channel": "app", "opened": "2026-03-01T10:00:00.123456+02:00"}
MOMENT = datetime.datetime(2026, 3, 1, 8, 0, 0, 123456, tzinfo=datetime.UTC)


def columns(**changed: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({name: [value] for name, value in GOOD.items()} | changed)


@pytest.mark.parametrize(
    "same",
    [
        {"opened": pa.array([MOMENT], pa.timestamp("us", "UTC"))},
        {"opened": pa.array([MOMENT], pa.timestamp("ns", "Europe/Berlin"))},
        {"opened": pa.array([MOMENT.replace(tzinfo=None)], pa.timestamp("us"))},
        {"opened": pa.array([MOMENT.timestamp()])},
        {"amount": pa.array([Decimal("10.50")])},
        {"amount": pa.array([10.5], pa.float16())},
        {"channel": pa.array(["app"]).dictionary_encode()},
        {"channel": pa.array(["app"], pa.large_string())},
        {"parts": pa.array([1.0])},
        {"parts": pa.array([None], pa.int8())},
        {"web": pa.nulls(1), "country": pa.nulls(1), "payment": pa.nulls(1)},
        {"paid": pa.array([NOW])},
        {"another": pa.array([{"a": 1}])},
    ],
)
def test_what_arrow_writes_otherwise_is_the_same_record(bundle: Bundle, same: dict[str, pa.Array]) -> None:
    scorer = Scorer(bundle.path, now=NOW)
    (expected,) = scorer.decide([GOOD])
    decided, errors = scorer.score(columns(**same))
    assert errors.num_rows == 0
    assert {name: decided.to_pylist()[0][name] for name in expected} == expected


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"amount": ["10"]}, "column `amount`: expected numbers, got string"),
        ({"web": [1]}, "column `web`: expected booleans, got int64"),
        ({"channel": [3]}, "column `channel`: expected strings, got int64"),
        ({"opened": [True]}, "column `opened`: expected timestamps, ISO 8601 strings, or numbers"),
        ({"contry": ["DE"]}, r"column `country`: .* but it is missing \(did you mean `contry`\?\)"),
    ],
)
def test_a_column_of_another_type_or_name_is_refused(bundle: Bundle, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        Scorer(bundle.path).score(columns(**changed))


def test_a_required_column_that_is_missing_is_refused(bundle: Bundle) -> None:
    with pytest.raises(InvalidRequest, match="column `amount`: expected a number from 0 to 1000, but it is missing"):
        Scorer(bundle.path).score(columns().drop_columns(["amount"]))


def test_bad_rows_are_named_and_the_others_decided(bundle: Bundle) -> None:
    given = pa.RecordBatch.from_pydict(
        {
            "payment": ["p0", "p1", "p2", "p3", "p4", "p5"],
            "amount": [1.0, -1.0, 2.0, None, 3.0, 4.0],
            "channel": ["app", "app", "telex", "fax", None, "shop"],
            "opened": ["2026-03-01"] * 5 + ["yesterday"],
            "parts": [1, 2, 3, 4, 5, 6],
            "country": ["DE", "XX", None, "FR", "DE", "DE"],
        }
    )
    decided, errors = Scorer(bundle.path).score(given)
    assert [(row["row"], row["payment"]) for row in decided.to_pylist()] == [(0, "p0")]
    assert [tuple(row.values()) for row in errors.to_pylist()] == [
        (1, "amount", "a number from 0 to 1000", "-1"),
        (2, "channel", "one of app, shop", '"telex"'),
        (3, "amount", "a number from 0 to 1000", "null"),
        (4, "channel", "one of app, shop", "null"),
        (5, "opened", "an ISO 8601 time or seconds since 1970", '"yesterday"'),
    ]


def test_rows_all_bad_and_no_rows_at_all_are_empty_answers(bundle: Bundle) -> None:
    scorer = Scorer(bundle.path)
    for given, bad in ((columns(amount=[-1.0]), 1), (columns().slice(0, 0), 0)):
        decided, errors = scorer.score(given)
        assert (decided.num_rows, errors.num_rows) == (0, bad)
        assert decided.schema == scorer.schema
    assert scorer.decide([]) == []


def test_numbers_beyond_the_models_range_are_errors_of_their_rows(tmp_path: Path) -> None:
    scorer = Scorer(saved(XGBClassifier(n_estimators=5), tmp_path).path)
    given = pa.RecordBatch.from_pydict({"amount": [1.0, 1e300, 2.0, 1e39], "age": [20.0] * 4})
    decided, errors = scorer.score(given)
    assert decided.column("row").to_pylist() == [0, 2]
    assert errors.column("row").to_pylist() == [1, 3]


def test_an_audited_field_is_checked_and_changes_nothing(bundle: Bundle) -> None:
    scorer = Scorer(bundle.path, now=NOW)
    given = pa.RecordBatch.from_pydict({name: [value] * 3 for name, value in GOOD.items()} | {"sex": ["f", "m", "?"]})
    decided, errors = scorer.score(given)
    assert len({row["score"] for row in decided.to_pylist()}) == 1
    assert errors.column("field").to_pylist() == ["sex"]


def test_a_pickled_scorer_decides_the_same_and_refuses_a_bundle_that_changed(tmp_path: Path) -> None:
    found = saved(XGBClassifier(n_estimators=5), tmp_path)
    scorer = Scorer(found.path, threads=2)
    given = batch(records()[:10], "amount", "age")
    pickled = pickle.dumps(scorer)
    assert pickle.loads(pickled).score(given) == scorer.score(given)  # noqa: S301
    manifest = found.path / "bundle.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    with pytest.raises(BundleError, match="expected digest sha256"):
        pickle.loads(pickled)  # noqa: S301


def test_decide_names_the_first_record_that_does_not_fit(bundle: Bundle) -> None:
    with pytest.raises(InvalidRequest, match="record 1, field `amount`: expected a number from 0 to 1000, got -2"):
        Scorer(bundle.path).decide([GOOD, {**GOOD, "amount": -2}])
