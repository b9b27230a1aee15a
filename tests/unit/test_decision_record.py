"""The decision record: what a table of entries holds, and that the model's inputs come back from it bit by bit."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabserve.arrays import Array
from tabserve.decision_log import record
from tabserve.decision_log.entry import Entry
from tabserve.schema.columns import Columns
from tabserve.schema.features import derive
from tabserve.schema.reading import parse
from tabserve.schema.records import Records
from tests.unit.unsaved import BINARY, MODEL, REGRESSION, REGRESSOR, bundle_of

ALL_TYPES = """\
task: binary
record:
  - {name: amount, type: number}
  - {name: country, type: category, values: [DE, FR, other], unknown: other, required: false}
  - {name: visits, type: integer, required: false}
  - {name: member, type: boolean, required: false}
  - {name: note, type: text, required: false}
  - {name: opened, type: timestamp}
  - {name: asked, type: timestamp, required: false, default: now}
  - {name: born, type: date, required: false}
  - {name: rate, type: number, required: false, default: 0.1}
  - {name: sex, type: category, values: [f, m], required: false, use: audit}
features:
  - amount
  - country
  - visits
  - member
  - note
  - rate
  - {name: age, days_between: [born, asked]}
  - {name: hour, hour_of: opened}
  - {name: share, ratio: [amount, visits]}
outputs: {classes: [accept, fraud]}
"""
SCHEMA = parse(ALL_TYPES, "schema.yaml")
NOW = 1_764_460_800.123457
SECONDS = datetime(2026, 11, 29, 23, 59, 59, 500_000, UTC).timestamp()
PROBABILITIES = np.array([[0.25, 0.75], [0.9, 0.1]], np.float32)
TOLD = {
    "decision": np.array(["review", "accept"], object),
    "score": np.array([0.75, np.float32(0.1)]),
    "label": np.array(["fraud", "accept"], object),
    "reasons": np.array([["unusual amount", ""], ["", ""]], object),
    "codes": np.array([["A01", ""], ["", ""]], object),
}
COLUMNS: Columns = {
    "amount": np.array([5, 7.5]),
    "country": np.array(["DE", None], object),
    "opened": np.array([NOW, 0.0]),
}


def entry(**changed: Any) -> Entry:
    made = Entry(
        request_id="r-7",
        time=SECONDS,
        rows=2,
        engine="xgboost",
        versions="tabserve 1, xgboost 3.1",
        release="a-1",
        digest="sha256:7",
        columns=COLUMNS,
        outputs={"predict_proba": PROBABILITIES},
        answers=TOLD,
    )
    return msgspec.structs.replace(made, **changed)


def told(*entries: Entry, text: str = BINARY, model: Any = MODEL, weights: Any = None) -> list[dict[str, Any]]:
    ones = weights or [np.ones(len(each)) for each in entries]
    rows: list[dict[str, Any]] = record.table(entries, ones, record.schema(bundle_of(text, model))).to_pylist()
    return rows


def test_a_record_holds_who_decided_what_on_what() -> None:
    first, second = told(entry())
    assert first == {
        "id": "r-7/0",
        "time": datetime(2026, 11, 29, 23, 59, 59, 500_000, UTC),
        "request_id": "r-7",
        "row": 0,
        "rows": 2,
        "source": "online",
        "release": "a-1",
        "digest": "sha256:7",
        "engine": "xgboost",
        "versions": "tabserve 1, xgboost 3.1",
        "record": {"amount": 5.0, "country": "DE", "opened": NOW},
        "outputs": {"predict": None, "predict_proba": [0.25, 0.75], "margin": None, "contributions": None},
        "decision": "review",
        "score": 0.75,
        "label": "fraud",
        "reasons": ["unusual amount"],
        "codes": ["A01"],
        "weight": 1.0,
    }
    assert second["record"] == {"amount": 7.5, "country": None, "opened": 0.0}
    assert (second["reasons"], second["codes"]) == ([], [])


def test_entries_are_joined_in_order_and_records_of_no_weight_are_left_out() -> None:
    some = entry(
        ids=np.array(["p-1", "p-2"], object), places=np.array([3, 8]), request_id="", source="s3://b/in.csv", answers={}
    )
    rows = told(entry(), some, weights=[np.array([0.0, 1.0]), np.array([4.0, 4.0])])
    assert [(row["id"], row["row"], row["source"], row["weight"]) for row in rows] == [
        ("r-7/1", 1, "online", 1.0),
        ("p-1", 3, "s3://b/in.csv#3", 4.0),
        ("p-2", 8, "s3://b/in.csv#8", 4.0),
    ]
    assert [(row["request_id"], row["decision"], row["score"], row["reasons"]) for row in rows[1:]] == [
        (None, None, None, None),
        (None, None, None, None),
    ]


def test_outputs_of_several_dimensions_are_one_list_a_row() -> None:
    shap = np.arange(8, dtype=np.float32).reshape(2, 4)
    first, second, third, _ = told(entry(outputs={"contributions": shap, "predict": np.array([1, 0])}), entry())
    assert first["outputs"] == {
        "predict": [1.0],
        "predict_proba": None,
        "margin": None,
        "contributions": [0.0, 1.0, 2.0, 3.0],
    }
    assert second["outputs"]["contributions"] == [4.0, 5.0, 6.0, 7.0]
    assert (third["outputs"]["contributions"], third["outputs"]["predict_proba"]) == (None, [0.25, 0.75])


def test_a_regression_of_several_targets_has_them_by_name() -> None:
    text = REGRESSION + "outputs: {targets: [low, high]}\n"
    model = msgspec.structs.replace(REGRESSOR, targets=2)
    values = np.array([[1.5, 4], [2, 3]])
    made = entry(columns={"size": np.array([1.0, 2.0])}, outputs={"predict": values}, answers={"predict": values})
    first, *_ = told(made, msgspec.structs.replace(made, answers={}), text=text, model=model)
    assert (first["predict"], first["outputs"]) == ({"low": 1.5, "high": 4.0}, {"predict": [1.5, 4.0]})
    assert first.keys().isdisjoint(["decision", "score", "label", "reasons", "codes"])


def test_a_model_that_answers_only_with_words_has_no_outputs() -> None:
    text = BINARY.replace(
        "  decision: {score: fraud, bands: [{from: 0.5, label: review}, {from: 0, label: accept}]}\n", ""
    )
    text = text.replace("  reasons: {top: 2, texts: {amount: unusual amount}}\n", "")
    model = msgspec.structs.replace(MODEL, outputs=("predict",), default_outputs=("predict",), classes=("a", "b"))
    words = np.array(["fraud", "accept"], object)
    first, second = told(entry(outputs={}, answers={"decision": words, "label": words}), text=text, model=model)
    assert (first["decision"], second["label"]) == ("fraud", "accept")
    assert first.keys().isdisjoint(["outputs", "score"])


def test_a_dropped_field_has_no_place_and_a_hashed_one_is_text() -> None:
    text = BINARY.replace("min: 0}", "min: 0, logged: hash}").replace("FR], ", "FR], logged: drop, ")
    hidden = {"amount": np.array(["ab12", None], object), "opened": COLUMNS["opened"]}
    assert [row["record"] for row in told(entry(columns=hidden), text=text)] == [
        {"amount": "ab12", "opened": NOW},
        {"amount": None, "opened": 0.0},
    ]


def test_without_a_field_that_is_kept_there_is_no_record() -> None:
    text = REGRESSION.replace("number}", "number, logged: drop}")
    made = entry(columns={}, outputs={"predict": np.ones(2)}, answers={"score": np.ones(2)})
    table = record.table([made], [np.ones(2)], record.schema(bundle_of(text, REGRESSOR)))
    assert "record" not in table.column_names
    pq.write_table(table, io.BytesIO())


def test_a_file_says_its_format_and_bundle() -> None:
    metadata = read(record.table([entry()], [np.ones(2)], record.schema(bundle_of(BINARY, MODEL)))).schema.metadata
    assert metadata[record.FORMAT_KEY.encode()] == b"1"
    assert orjson.loads(metadata[record.BUNDLE.encode()]) == {"name": "fraud", "version": "3"}


@pytest.mark.parametrize("text", ["x", "x" * 1000])
def test_the_size_of_an_entry_counts_its_texts(text: str) -> None:
    small, large = (entry(columns={"note": np.array([each] * 2, object)}).nbytes for each in ("", text))
    assert large - small == 2 * len(text)


def read(table: pa.Table) -> pa.Table:
    """The table, once written to Parquet and read."""
    written = io.BytesIO()
    pq.write_table(table, written, compression="zstd")
    return pq.read_table(written)


texts = st.text(st.characters(codec="utf-8"), max_size=5)
finite = st.floats(allow_nan=False, allow_infinity=False)
instants = st.floats(-62_135_596_800.0, 253_402_300_799.0) | st.datetimes().map(datetime.isoformat)
described = st.fixed_dictionaries(
    {"amount": finite, "opened": instants},
    optional={
        "country": st.sampled_from(["DE", "FR", "XX", "", None]),
        "visits": st.none() | st.integers(-(2**53) + 1, 2**53 - 1) | st.just(-0.0),
        "member": st.none() | st.booleans(),
        "note": st.none() | texts,
        "asked": st.none() | instants,
        "born": st.none() | st.dates().map(str),
        "rate": st.none() | finite,
        "sex": st.sampled_from(["f", None]),
    },
)


def bits(columns: Columns) -> dict[str, Any]:
    return {name: each.tolist() if each.dtype == object else _hex(each) for name, each in columns.items()}


def _hex(array: Array) -> list[str]:
    """The bytes of each number; a NaN is missing, whatever its bits."""
    return [np.float64(np.nan if np.isnan(each) else each).tobytes().hex() for each in array]


@given(st.lists(described, min_size=1, max_size=4))
def test_the_models_inputs_come_back_from_a_file_bit_by_bit(records: list[dict[str, Any]]) -> None:
    columns = Records(SCHEMA, clock=lambda: NOW).decode(orjson.dumps({"instances": records}))
    ones = np.ones(len(records))
    outputs = {"predict_proba": np.full((len(records), 2), 0.5, np.float32)}
    made = record.table(
        [entry(columns=columns, outputs=outputs, answers={})], [ones], record.schema(bundle_of(ALL_TYPES, MODEL))
    )
    back = record.columns(read(made)["record"].combine_chunks(), SCHEMA)
    assert bits(back) == bits(columns)
    with np.errstate(all="ignore"):
        assert bits(derive(SCHEMA, back)) == bits(derive(SCHEMA, columns))
