"""Schemas drafted from tables: types, ranges, categories, targets; and every draft fits its own table."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tabserve.bundle import BundleError
from tabserve.cli import main
from tabserve.schema.reading import parse
from tabserve.train import drafting, sampling, tables
from tabserve.train.inferring import outward
from tabserve.train.tables import Table

ROWS = 40


def csv_of(columns: dict[str, list[Any]], delimiter: str = ",") -> str:
    rows = zip(*columns.values(), strict=True)
    return "\n".join(delimiter.join(map(str, row)) for row in [list(columns), *rows]) + "\n"


def drafted(path: Path, *options: str) -> str:
    done = CliRunner().invoke(main, ["schema", "draft", str(path), *options])
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(path: Path, *options: str) -> str:
    done = CliRunner().invoke(main, ["schema", "draft", str(path), *options])
    assert done.exit_code == 1, done.output
    return done.output


def some(values: list[Any]) -> list[Any]:
    """As many values as there are rows, one after the other."""
    return [values[at % len(values)] for at in range(ROWS)]


ALL: dict[str, list[Any]] = {
    "order_id": [f"A-{at}" for at in range(ROWS)],
    "price": some([12.5, 3, 87.25]),
    "change": some([-0.3, 4.1]),
    "count": some(list(range(30))),
    "floor": some([1, 2]),
    "code": some(["01", "02"]),
    "express": some(["true", "False"]),
    "country": some(["DE", "NO", "IT"]),
    "remark": [f"remark {at}" for at in range(ROWS)],
    "sent": some(["2026-01-31", "2025-02-28"]),
    "asked": some(["2026-01-31T10:00:00Z", "2026-01-31 10:00"]),
    "weight": some(["1.5", "", "2"]),
    "age": some(["41", "?", "12"]),
    "empty": some([""]),
    "late": some(["yes", "no"]),
}
DRAFT = """\
task: binary  # guessed; or another of binary, multiclass, regression, anomaly
id: order_id  # different in every record
record:
  - {name: price, type: number, min: 0, max: 100}  # 3 to 87.25 in the data; add unit: …
  - {name: change, type: number, min: -0.5, max: 5}  # -0.3 to 4.1 in the data; add unit: …
  - {name: count, type: integer, min: 0, max: 50}  # 0 to 29 in the data; add unit: …
  - {name: floor, type: integer, min: 0, max: 2}  # 1 to 2 in the data; if codes: type: category, values: [1, 2]
  - {name: code, type: category, values: ['01', '02']}
  - {name: express, type: boolean}
  - {name: country, type: category, values: [DE, IT, 'NO']}
  - {name: remark, type: text}  # every value is different; leave it out of `features` if it only identifies the record
  - {name: sent, type: date}
  - {name: asked, type: timestamp}
  - {name: weight, type: number, min: 0, max: 2, required: false}  # 1.5 to 2 in the data; add unit: …
  - {name: age, type: integer, min: 0, max: 50, required: false}  # the data also have "?": leave these cells empty
features: [price, change, count, floor, code, express, country, remark, weight, age]
# `sent` is not a feature by itself: add {name: …, month_of: sent} or similar
# `asked` is not a feature by itself: add {name: …, hour_of: asked} or similar
# `empty` is empty in every record, and left out
outputs:
  classes: ['no', 'yes']
  # decision: {score: 'yes', bands: [{from: 0.5, label: …}, {from: 0, label: …}]}
"""


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_type_is_drafted_of_a_csv_file(tmp_path: Path, delimiter: str, mark: str) -> None:
    (tmp_path / "orders.csv").write_text(mark + csv_of(ALL, delimiter), encoding="utf-8")
    text = drafted(tmp_path / "orders.csv", "--target", "late")
    assert text == DRAFT
    assert parse(text, "schema.yaml").outputs.classes == ("no", "yes")


def test_what_the_notes_propose_is_a_schema(tmp_path: Path) -> None:
    text = DRAFT.replace("type: integer, min: 0, max: 2}", "type: category, values: [1, 2]}").replace(
        "features: [price", "features: [{name: month, month_of: sent}, {name: hour, hour_of: asked}, price"
    )
    text = text.replace("  # decision", "  decision").replace("label: …", "label: a", 1).replace("label: …", "label: b")
    schema = parse(text.replace("max: 100}", "max: 100, unit: EUR}"), "schema.yaml")
    given = {name: [None if value == "" else value for value in column] for name, column in ALL.items()}
    given |= {"age": [None if value == "?" else int(value) for value in ALL["age"]]}
    given |= {"express": [value == "true" for value in ALL["express"]]}
    given |= {"weight": [float(value) if value else None for value in ALL["weight"]]}
    assert len(sampling.columns(schema, given)["floor"]) == ROWS


def test_parquet_says_its_types(tmp_path: Path) -> None:
    day = datetime.date(2026, 1, 31)
    columns = {
        "price": pa.array(some([1.5, None])),
        "count": pa.array(some([1.0, 25.0, None, 3.0, 7.0, 9.0, 11.0, 13.0, 15.0, 17.0, 19.0, 21.0])),
        "digits": pa.array(some(["1", "2"])),
        "express": pa.array(some([True, False])),
        "sent": pa.array([day] * ROWS),
        "day": pa.array([datetime.datetime(2026, 1, 31)] * ROWS, pa.timestamp("us")),
        "asked": pa.array([datetime.datetime(2026, 1, 31, 7)] * ROWS, pa.timestamp("us", "UTC")),
        "value": pa.array(some([1.5, 2.5, 7.25])),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    schema = parse(drafted(tmp_path / "a.parquet", "--target", "value"), "schema.yaml")
    assert schema.task == "regression"
    assert [(field.name, field.type, field.required) for field in schema.record] == [
        ("price", "number", False),
        ("count", "integer", False),
        ("digits", "category", True),
        ("express", "boolean", True),
        ("sent", "date", True),
        ("day", "date", True),
        ("asked", "timestamp", True),
    ]
    assert len(sampling.columns(schema, tables.sample(tmp_path / "a.parquet", schema))["price"]) == ROWS


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (some([1, 0]), "binary", ("0", "1")),
        (some(["b", "a", "c"]), "multiclass", ("a", "b", "c")),
        (some([10, 2, 3]), "multiclass", ("2", "3", "10")),
        (list(range(ROWS)), "regression", ()),
        (some([1.5, 2.5, 3.25]), "regression", ()),
        (some(["1.5", "2", "3"]), "regression", ()),
    ],
)
def test_the_target_shows_the_task_and_the_order_of_the_classes(
    tmp_path: Path, values: list[Any], task: str, classes: tuple[str, ...]
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(csv_of({"x": some([1.5, 2.5]), "y": values}))
    schema = parse(drafted(path, "--target", "y"), "schema.yaml")
    assert (schema.task, schema.outputs.classes, list(schema.fields)) == (task, classes, ["x"])
    for told in ("regression", "binary", "multiclass", "anomaly"):
        assert parse(drafted(path, "--target=y", f"--task={told}"), "schema.yaml").task == told


@pytest.mark.parametrize(
    ("content", "options", "problem"),
    [
        ("", [], "a.csv: expected a header with a name for each column, got an empty file. Name the columns."),
        ("a,a\n1,2\n", [], "got `a` twice"),
        ("a,\n1,2\n", [], "got a column without a name"),
        ("a,b\n", [], "a.csv: expected records, got none"),
        ("a,b\n1,2\n3\n", [], "a.csv: line 3: expected 2 cells, got 1"),
        ("a,b\n1,2\n3,4,5\n", [], "a.csv: line 3: expected 2 cells, got 3"),
        ("a,b\n1,2\n3,4\n", ["--target=bb"], "there is no column `bb` (did you mean `b`?). Give one of a, b."),
        ("a,b\n1,2\n3,\n", ["--target=b"], "`b` is missing in record 1. Leave out the records without it"),
        ("a,b\n1,2\n3,2\n", ["--target=b"], "`b` is 2 in every record. Give records of several classes."),
        ("b\n1\n3\n", ["--target=b"], "expected a column besides the target and the id, got none"),
        ('"a""b",c\n1,2\n', [], "expected a name without quotes, backslashes and backticks. Rename the column."),
    ],
)
def test_what_is_no_table_to_draft_of_is_refused(
    tmp_path: Path, content: str, options: list[str], problem: str
) -> None:
    (tmp_path / "a.csv").write_text(content)
    assert problem in refused(tmp_path / "a.csv", *options)


def test_other_bytes_than_utf_8_and_than_parquet_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("name\nMüller\n".encode("cp1252"))
    assert "expected UTF-8, got other bytes at byte 6. Save it as UTF-8: iconv -f cp1252" in refused(tmp_path / "a.csv")
    pq.write_table(pa.table({"a": [[1], [2]]}), tmp_path / "b.parquet")
    assert "column `a`: expected numbers, booleans, texts or times, got list" in refused(tmp_path / "b.parquet")
    (tmp_path / "a.csv").write_text(f'a\n"{"x" * 200_000}"\n')
    assert "a.csv: line 2: field larger than field limit" in refused(tmp_path / "a.csv")
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    assert "a.parquet: not a Parquet file" in refused(tmp_path / "a.parquet")


def test_a_table_of_dates_alone_has_their_months(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(csv_of({"sent": some(["2026-01-31", "2025-02-28"]), "y": some([0, 1])}))
    assert parse(drafted(tmp_path / "a.csv", "--target=y"), "schema.yaml").feature_names == ("month of sent",)


@given(st.floats(min_value=5e-324, max_value=1.7e308))
def test_bounds_are_rounded_outwards_by_at_most_a_factor_of_ten(value: float) -> None:
    assert value <= outward(value) <= 10 * value * (1 + 1e-9)


CELLS = st.one_of(
    st.just(""),
    st.integers(-(10**17), 10**17).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(str),
    st.booleans().map(str),
    st.dates().map(str),
    st.datetimes().map(str),
    st.sampled_from(
        ["NA", "?", "nan", "inf", "1e999", "007", "1_000", " 1", "yes", "no", "on", "null", "~", "a: b", "#"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8),
)


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=12))
def test_any_table_has_a_draft_that_its_own_records_fit(rows: list[list[str]]) -> None:
    """Where a note says that cells have to be empty, they are emptied."""
    columns = {name: [row[at] or None for row in rows] for at, name in enumerate("abc")}
    text = drafting.of_table(Table({"x": ["1.5"] * len(rows), **columns}, texts=True), None)
    schema = parse(text, "schema.yaml")
    typed = {"x": [1.5] * len(rows)}
    for name, values in columns.items():
        field = schema.fields.get(name)
        typed[name] = tables._typed(values, field)
        if f"{name}, " in text and "leave these cells empty" in text and field and field.type in ("number", "integer"):
            typed[name] = [None if isinstance(value, str) else value for value in typed[name]]
    assert len(sampling.columns(schema, typed)["x"]) == len(rows)


def test_times_in_a_sample_are_texts_or_seconds(tmp_path: Path) -> None:
    schema = parse("task: binary\nrecord: [{name: a, type: timestamp}]\nfeatures: [{name: h, hour_of: a}]\n", "s")
    (tmp_path / "a.csv").write_text("a\n2024-01-01T10:00:00\n1704103200\n1704103200.5\n")
    found = sampling.columns(schema, tables.sample(tmp_path / "a.csv", schema))
    assert found["a"].tolist() == [1704103200.0, 1704103200.0, 1704103200.5]


def test_a_sample_is_read_as_the_schema_s_types(tmp_path: Path) -> None:
    fields = ["a, type: number", "b, type: integer", "c, type: boolean", "d, type: category, values: [1, 2]"]
    record = "".join(f"  - {{name: {field}}}\n" for field in [*fields, "e, type: text"])
    schema = parse(f"task: binary\nrecord:\n{record}features: [a]\n", "schema.yaml")
    text = 'a,b,c,d,e,f\n1,2,true,1,3,"x\u2028\ny"\n\nmuch,2.5,maybe,01,,\n'
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    assert tables.sample(tmp_path / "a.csv", schema) == {
        "a": [1.0, "much"],
        "b": [2, 2.5],
        "c": [True, "maybe"],
        "d": [1, "01"],
        "e": ["3", None],
        "f": ["x\u2028\ny", None],
    }
    with pytest.raises(BundleError) as told:
        sampling.columns(schema, tables.sample(tmp_path / "a.csv", schema))
    lines = str(told.value).splitlines()[1:]
    assert [line.split("`")[1] for line in lines] == ["a", "b", "c", "d", "e"]
    assert all(" in record 1. " in line for line in lines)
