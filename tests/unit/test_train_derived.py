"""Dates, categories of whole numbers, and derived features: the same in training, in the services and in files."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression
from xgboost import XGBClassifier

import tabserve.train
from tabserve.bundle import Bundle, BundleError, expected
from tabserve.scoring import Scorer
from tabserve.scoring.run import Options, run
from tests.unit.cores import Cores
from tests.unit.served import assert_serves

SCHEMA = """\
task: binary
record:
  - {name: joined, type: date}
  - {name: left, type: date, required: false}
  - {name: fee, type: number, min: 0}
  - {name: hours, type: number, min: 0}
  - {name: region, type: category, values: [1, 2, 3], required: false}
features:
  - fee
  - region
  - {name: month, month_of: joined}
  - {name: weekday, weekday_of: joined}
  - {name: days, days_between: [joined, left]}
  - {name: price, ratio: [fee, hours]}
  - {name: size, log: hours}
outputs: {classes: [stays, goes], decision: {score: goes, bands: [{from: 0.5, label: call}, {from: 0, label: wait}]}}
"""


def members(count: int = 300) -> pd.DataFrame:
    """Some never left, some watched for no hour, and some live nowhere, so that pandas makes the regions FP64."""
    random = np.random.default_rng(4)
    joined = np.datetime64("2025-01-01", "D") + random.integers(0, 400, count).astype("timedelta64[D]")
    left = joined + random.integers(1, 90, count).astype("timedelta64[D]")
    left[random.random(count) < 0.3] = np.datetime64("NaT", "D")
    hours = np.where(random.random(count) < 0.2, 0, random.gamma(2, 5, count)).round(2)
    region = np.where(random.random(count) < 0.1, np.nan, random.integers(1, 4, count))
    return pd.DataFrame(
        {"joined": joined, "left": left, "fee": random.gamma(3, 4, count).round(2), "hours": hours, "region": region}
    )


def goes(frame: pd.DataFrame) -> Any:
    return (frame.fee / (frame.hours + 1) > 1.5).astype(int)


def texts(frame: pd.DataFrame) -> pd.DataFrame:
    """The records as a client writes them."""
    dates = {name: frame[name].dt.strftime("%Y-%m-%d").astype(object) for name in ("joined", "left")}
    return frame.assign(**dates, region=frame.region.astype("Int64").astype(object))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("derived") / "schema.yaml"
    path.write_text(SCHEMA)
    return path


@pytest.fixture(scope="module")
def model(path: Path) -> XGBClassifier:
    frame = members()
    model = XGBClassifier(n_estimators=10, max_depth=3, enable_categorical=True)
    return model.fit(tabserve.train.features(path, frame), goes(frame))


@pytest.fixture(scope="module")
def bundle(path: Path, model: XGBClassifier) -> Bundle:
    return tabserve.train.save(model, path.parent / "b", name="m", version="1", schema=path, sample=members())


def test_training_sees_what_the_records_say(path: Path) -> None:
    (row,) = tabserve.train.features(
        path, [{"joined": "2025-03-01", "left": "2025-03-04", "fee": 6, "hours": 4, "region": 2}]
    ).to_dict("records")
    assert row == {
        "fee": 6.0, "region": "2", "month": 3.0, "weekday": 5.0, "days": 3.0, "price": 1.5, "size": np.log(4.0),
    }  # fmt: skip


def test_services_answer_as_the_model_does(bundle: Bundle, model: XGBClassifier, path: Path) -> None:
    frame = members()
    assert frame.region.dtype == np.float64
    wanted = model.predict_proba(tabserve.train.features(path, frame))
    assert_serves(bundle, texts(frame), {"predict_proba": wanted})


def test_files_are_scored_as_the_services_answer(bundle: Bundle, tmp_path: Path) -> None:
    frame = members(60)
    (tmp_path / "in").mkdir()
    texts(frame).to_csv(tmp_path / "in" / "a.csv", index=False)
    texts(frame).to_json(tmp_path / "in" / "b.jsonl", orient="records", lines=True)
    arrow = {"joined": pa.date32(), "left": pa.date32(), "fee": pa.float64(), "hours": pa.float64()}
    for name, region in (("c", pa.int8()), ("d", pa.float32())):
        kinds = pa.schema([*arrow.items(), ("region", region)])
        pq.write_table(pa.Table.from_pandas(frame, kinds), tmp_path / "in" / f"{name}.parquet")
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    record = run(lambda now: Scorer(bundle.path, now=now), source, target, Options(format="jsonl"), lambda *_: None)
    wanted = [row["decision"] for row in Cores(bundle).predictions(texts(frame))]
    assert (record.rows, record.errors, len(record.inputs)) == (240, 0, 4)
    for one in record.inputs:
        decided = pd.read_json(tmp_path / "out" / one.output, lines=True)
        assert decided.decision.tolist() == wanted


def test_a_time_of_day_in_a_file_is_an_error_of_its_row(bundle: Bundle) -> None:
    good = {"fee": 1.0, "hours": 1.0, "region": "1"}
    moment = pa.array(pd.to_datetime(["2025-01-01 00:00", "2025-01-01 08:00"]))
    batch = pa.RecordBatch.from_pylist([good, good]).append_column("joined", moment)
    decided, errors = Scorer(bundle.path).score(batch)
    assert decided["row"].to_pylist() == [0]
    assert [row["expected"] for row in errors.to_pylist()] == ["an ISO 8601 date, such as 2026-11-30"]


@pytest.mark.parametrize(("fee", "limit"), [(1e300, "1.8e+308"), (1e30, "3.4e+38")])
def test_a_ratio_that_is_too_large_is_an_error_of_its_row(bundle: Bundle, fee: float, limit: str) -> None:
    day = pa.array([datetime.date(2025, 1, 1)] * 2)
    batch = pa.RecordBatch.from_pydict({"joined": day, "fee": [1.0, fee], "hours": [1.0, 1e-20]})
    decided, errors = Scorer(bundle.path).score(batch)
    assert decided["row"].to_pylist() == [0]
    (error,) = errors.to_pylist()
    assert (error["row"], error["field"]) == (1, "price")
    assert error["expected"].endswith(f"within ±{limit}")


def test_a_reference_record_has_dates_that_are_accepted_again(bundle: Bundle) -> None:
    record = expected.record(bundle, 0)
    assert len(record["joined"]) == len("2025-01-01")
    decision = Scorer(bundle.path).decide([record])[0]["decision"]
    assert decision == expected.decision(bundle, 0)["decision"]


def test_a_model_that_needs_every_value_is_refused_and_the_remedy_works(path: Path, tmp_path: Path) -> None:
    text = SCHEMA.replace("  - region\n", "").replace("  - {name: days, days_between: [joined, left]}\n", "")
    frame = members().query("hours > 0")
    loose, strict = tmp_path / "loose.yaml", tmp_path / "strict.yaml"
    loose.write_text(text)
    strict.write_text(text.replace("hours, type: number, min: 0", "hours, type: number, min: 0.01"))
    model = LogisticRegression(max_iter=1000).fit(tabserve.train.features(strict, frame), goes(frame))
    options: dict[str, Any] = {"name": "m", "version": "1", "sample": frame}
    with pytest.raises(BundleError, match=r"without `price`.* with a `min` above 0 for `hours`"):
        tabserve.train.save(model, tmp_path / "b", schema=loose, **options)
    saved = tabserve.train.save(model, tmp_path / "b", schema=strict, **options)
    wanted = model.predict_proba(tabserve.train.features(strict, frame))
    assert_serves(saved, texts(frame), {"predict_proba": wanted})


def test_everything_in_a_sample_that_does_not_fit_is_told_with_its_mend(path: Path) -> None:
    frame = members(20)
    frame["fee"] = pd.Series(["much", -1.0, *[1.0] * 18], dtype=object)
    frame["region"] = [4, 5, *[1] * 18]
    frame["joined"] = frame["joined"] + np.timedelta64(8, "h")
    frame = frame.rename(columns={"hours": "hour"})
    with pytest.raises(BundleError) as told:
        tabserve.train.features(path, frame)
    head, *lines = str(told.value).splitlines()
    assert head == "sample: does not fit the schema:"
    assert [line.split("`")[1] for line in lines] == ["joined", "fee", "hours", "region"]
    assert 'got "2025-' in lines[0]
    assert lines[0].endswith("in every record. Leave out the time of day, or say `type: timestamp`")
    assert 'got "much", -1 in record 0 and 1 other. Correct the records, or change the `type`' in lines[1]
    assert "missing in every record (did you mean `hour`?). Give it a value there, or say `required: false`" in lines[2]
    assert 'got "4", "5" in record 0 and 1 other. Add what is missing to `values`' in lines[3]


def test_a_sample_without_any_of_the_fields_is_told_what_it_lacks(path: Path) -> None:
    with pytest.raises(BundleError) as told:
        tabserve.train.features(path, {"hour": [1.0, 2.0], "fees": [1.0, 2.0]})
    assert [line.split("`")[1] for line in str(told.value).splitlines()[1:]] == ["joined", "fee", "hours"]
    assert "`fee`: missing in every record (did you mean `fees`?)." in str(told.value)


@pytest.mark.parametrize(
    ("field", "values", "told", "mended"),
    [
        ("type: number, min: 0", [-2.0, 1.0], "change `min`", "type: number"),
        ("type: number, min: 0, max: 1", [-2.0, 2.0], "change `min` and `max`", "type: number"),
        ("type: integer", [1.5, 2.0], "say `type: number`", "type: number"),
        ("type: integer, max: 3", [1.5, 4.0], "change `max` and say `type: number`", "type: number"),
        (
            "type: category, values: [a]",
            ["a", "b"],
            "Add what is missing to `values`",
            "type: category, values: [a, b]",
        ),
        (
            "type: category, values: [a]",
            ["a", "b"],
            "or other with `unknown: other`",
            "type: category, values: [a, other], unknown: other",
        ),
        ("type: text, max_length: 2", ["abc", "a"], "say `max_length: 3`", "type: text, max_length: 3"),
        ("type: number", [1.0, None], "say `required: false`", "type: number, required: false"),
        ("type: number", [True, False], "change the `type`", "type: boolean"),
        ("type: date", ["2025-01-01T08:00:00", "2025-01-01"], "say `type: timestamp`", "type: timestamp"),
    ],
)
def test_each_mend_works(field: str, values: list[Any], told: str, mended: str, tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    text = "task: regression\nrecord: [{name: x, FIELD}, {name: y, type: number}]\nfeatures: [y]\n"
    sample = {"x": values, "y": [1.0] * len(values)}
    path.write_text(text.replace("FIELD", field))
    with pytest.raises(BundleError) as refused:
        tabserve.train.features(path, sample)
    assert told in str(refused.value)
    path.write_text(text.replace("FIELD", mended))
    assert len(tabserve.train.features(path, sample)) == len(values)
