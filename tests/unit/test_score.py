"""`tabserve score` on real files: the same decisions from every format, once each, whole or not at all."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import pytest
from xgboost import XGBClassifier

import tabserve.train
from tabserve.bundle import Bundle
from tabserve.scoring import Scorer
from tabserve.scoring.run import Options, Record, run
from tabserve.scoring.storage import RunError
from tabserve.scoring.where import ConditionError, parse

NOW = 1_800_000_000.25
SCHEMA = """\
task: binary
id: payment
record:
  - {name: amount, type: number, min: 0, max: 1000}
  - {name: parts, type: integer, required: false, default: 1}
  - {name: web, type: boolean}
  - {name: country, type: category, values: [DE, FR, other], unknown: other, required: false}
  - {name: opened, type: timestamp}
  - {name: paid, type: timestamp, required: false, default: now}
features: [amount, parts, web, country, {name: days, days_between: [opened, paid]}]
outputs:
  classes: [good, bad]
  decision: {score: bad, bands: [{from: 0.5, label: refuse}, {from: 0, label: accept}]}
  reasons: {top: 2, for: [refuse]}
"""


def payments(count: int) -> pd.DataFrame:
    """Categories and whole numbers missing, unknown countries, times with fractions of a second."""
    random = np.random.default_rng(5)
    opened = np.datetime64("2026-01-01", "us") + random.integers(0, 10**13, count).astype("timedelta64[us]")
    parts = pd.array(random.integers(1, 5, count), dtype="Int64")
    parts[random.random(count) < 0.1] = pd.NA
    return pd.DataFrame(
        {
            "payment": [f"p{at}" for at in range(count)],
            "amount": random.uniform(0, 1000, count).round(2),
            "parts": parts,
            "web": random.random(count) < 0.5,
            "country": random.choice(["DE", "FR", "XX", None], count),
            "opened": opened,
        }
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("score")
    path = folder / "schema.yaml"
    path.write_text(SCHEMA)
    frame = payments(400).assign(paid=np.datetime64("2026-06-01"))
    model = XGBClassifier(n_estimators=10, enable_categorical=True)
    model.fit(tabserve.train.features(path, frame), (frame.amount > 500).astype(int))
    return tabserve.train.save(model, folder / "bundle", name="payments", version="1", schema=path, sample=frame)


def written(frame: pd.DataFrame, folder: Path, *kinds: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for kind in kinds or ("parquet",):
        if kind == "parquet":
            pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), folder / "a.parquet")
        elif kind == "csv":
            frame.to_csv(folder / "b.csv", index=False)
        else:
            lines = frame.to_json(orient="records", lines=True, date_format="iso", date_unit="us", double_precision=15)
            (folder / "c.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return folder


def scored(bundle: Bundle, source: Path, target: Path, **options: Any) -> Record:
    def open_scorer(now: float) -> Scorer:
        return Scorer(bundle.path, now=now)

    given = Options(**{"now": NOW, **options})
    return run(open_scorer, str(source), str(target), given, lambda name, rows, part: None)


def outputs(target: Path) -> dict[str, bytes]:
    return {str(one.relative_to(target)): one.read_bytes() for one in target.rglob("*") if one.is_file()}


def test_every_format_gets_the_decisions_of_the_services(bundle: Bundle, tmp_path: Path) -> None:
    frame = payments(3_000)
    record = scored(bundle, written(frame, tmp_path / "in", "parquet", "csv", "jsonl"), tmp_path / "out")
    assert (record.rows, record.errors) == (9_000, 0)
    parquet, texts, lines = (tmp_path / "out" / one.output for one in record.inputs)
    decided = pq.read_table(parquet).to_pylist()
    assert [json.loads(line) for line in lines.read_text().splitlines()] == decided
    flat = [{**row, "reasons": "; ".join(row["reasons"])} for row in decided]
    kinds = {name: pa.string() for name in ("payment", "decision", "label", "reasons", "engine")}
    read = arrow_csv.read_csv(
        texts, convert_options=arrow_csv.ConvertOptions(column_types=kinds, strings_can_be_null=False)
    )
    assert read.to_pylist() == flat
    asked = json.loads(frame.to_json(orient="records", date_format="iso", date_unit="us", double_precision=15))
    answers = Scorer(bundle.path, now=NOW).decide(asked)
    assert [{name: row[name] for name in answers[0]} for row in decided] == answers
    assert [row["payment"] for row in decided] == frame.payment.tolist()


def test_a_second_run_does_only_what_changed(bundle: Bundle, tmp_path: Path) -> None:
    source, target = written(payments(50), tmp_path / "in", "parquet", "csv"), tmp_path / "out"
    scored(bundle, source, target)
    first = outputs(target)
    times = {one: (target / one).stat().st_mtime_ns for one in first}
    scored(bundle, source, target)
    assert outputs(target) == first
    assert all((target / one).stat().st_mtime_ns == times[one] for one in first if not one.startswith("_"))
    written(payments(60), source, "csv")
    record = scored(bundle, source, target)
    assert [one.rows for one in record.inputs] == [50, 60]
    changed = outputs(target)
    assert set(changed) == {"_tabserve.json", *(one.output for one in record.inputs)}
    assert (target / record.inputs[0].output).stat().st_mtime_ns == times[record.inputs[0].output]


def test_other_options_and_bundles_are_other_outputs(bundle: Bundle, tmp_path: Path) -> None:
    source, target = written(payments(50), tmp_path / "in"), tmp_path / "out"
    names = [scored(bundle, source, target, keep=keep).inputs[0].output for keep in ((), ("amount",))]
    assert len(set(names)) == 2
    assert sorted(outputs(target)) == sorted(["_tabserve.json", names[1]])
    assert pq.read_table(target / names[1]).column_names[-1] == "amount"


def test_folders_and_patterns_keep_their_layout_and_hidden_files_are_left(bundle: Bundle, tmp_path: Path) -> None:
    source = tmp_path / "in"
    for day in ("day=1", "day=2", "_skipped", ".hidden"):
        written(payments(5), source / day)
    (source / "day=1" / "notes.txt").write_text("no table")
    record = scored(bundle, source, source / "out")
    assert [one.output.partition("/")[0] for one in record.inputs] == ["day=1", "day=2"]
    assert [one.input for one in scored(bundle, source, source / "out").inputs] == [one.input for one in record.inputs]
    (one,) = scored(bundle, source / "day=2*" / "*.parquet", tmp_path / "out").inputs
    assert one.input.endswith("day=2/a.parquet")


BAD = """\
payment,amount,parts,web,country,opened,paid
a,1.5,,true,DE,2026-01-01,
b,lots,,true,DE,2026-01-01,
c,2,1.5,maybe,DE,2026-01-01,
d,3,1,false
,4,2,FALSE,FR,1767225600,2026-02-01T00:00:00+01:00
"""


def test_rows_that_cannot_be_decided_are_written_with_what_was_wrong(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(BAD)
    record = scored(bundle, tmp_path / "in.csv", tmp_path / "out", on_error="record", format="jsonl")
    (one,) = record.inputs
    assert (one.rows, one.decided, one.errors) == (5, 2, 3)
    errors = pq.read_table(tmp_path / "out" / str(one.errors_in)).to_pylist()
    assert [tuple(error.values()) for error in errors] == [
        (1, "amount", "a number from 0 to 1000", '"lots"'),
        (2, "parts", "a whole number", '"1.5"'),
        (3, "", "7 cells", "4"),
    ]
    lines = [json.loads(line) for line in (tmp_path / "out" / one.output).read_text().splitlines()]
    assert [(line["row"], line["payment"]) for line in lines] == [(0, "a"), (4, "in.csv/4")]


JSON_LINES = [
    ({"amount": 1, "web": True, "opened": 0}, None),
    ({"amount": "1", "web": True, "opened": 0}, ("amount", "a number from 0 to 1000", '"1"')),
    ({"amount": 1, "web": 1, "opened": 0}, ("web", "true or false", "1")),
    ({"amount": 1, "web": True, "opened": "noon"}, ("opened", "an ISO 8601 time or seconds since 1970", '"noon"')),
    ({"amount": 1, "web": True}, ("opened", "an ISO 8601 time or seconds since 1970", "null")),
    ({"amount": 1, "web": True, "opened": 0, "contry": "DE"}, ("country", "one of DE, FR, other", "`contry` instead")),
    ([1], ("", "a JSON object", "[1]")),
    ({"amount": 10**400, "web": True, "opened": 0}, ("amount", "a number from 0 to 1000", "inf")),
]


def test_lines_of_json_are_typed_by_the_schema(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n\n".join(json.dumps(line) for line, _ in JSON_LINES))
    record = scored(bundle, tmp_path / "in.jsonl", tmp_path / "out", on_error="record")
    errors = pq.read_table(tmp_path / "out" / str(record.inputs[0].errors_in)).to_pylist()
    assert [tuple(error.values()) for error in errors] == [
        (at, *expected) for at, (_, expected) in enumerate(JSON_LINES) if expected
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"in.csv: row 1, field `amount`: expected a number from 0 to 1000, got \"lots\""),
        ({"on_error": "record", "most_errors": 2}, "more than 2 rows cannot be decided; the last of them: row 3"),
        ({"keep": ("nothing",), "on_error": "record"}, "no column `nothing` to keep"),
        ({"where": "amount > 'x'"}, "--where: "),
    ],
)
def test_a_run_that_cannot_go_on_leaves_no_output(
    bundle: Bundle, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "in.csv").write_text(BAD)
    with pytest.raises(RunError, match=message):
        scored(bundle, tmp_path / "in.csv", tmp_path / "out", **options)
    assert [name for name in outputs(tmp_path / "out") if not name.startswith("_unfinished")] == []


@pytest.mark.parametrize(
    ("condition", "count"),
    [
        ("amount > 900", lambda frame: (frame.amount > 900).sum()),
        (
            'country in ["DE", "FR"] and not amount <= 500',
            lambda f: (f.country.isin(["DE", "FR"]) & (f.amount > 500)).sum(),
        ),
        ("country is None or parts == 2", lambda f: (f.country.isna() | (f.parts == 2).fillna(False)).sum()),
        ("amount < 0", lambda frame: 0),
    ],
)
def test_a_condition_chooses_rows_of_every_format(bundle: Bundle, tmp_path: Path, condition: str, count: Any) -> None:
    frame = payments(300)
    record = scored(bundle, written(frame, tmp_path / "in", "parquet", "csv"), tmp_path / "out", where=condition)
    assert [one.decided for one in record.inputs] == [count(frame)] * 2


@pytest.mark.parametrize(
    "text", ["amount", "amount > other", "f(amount) > 1", "1 > amount", "amount in 3", "a is 3", "("]
)
def test_a_condition_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConditionError, match="expected comparisons of columns with values"):
        parse(text)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.parquet", b"PAR1 no", "in.parquet: expected parquet, "),
        ("in.csv", b"a,b\n1,2\n", "in.csv: column `amount`: expected a number from 0 to 1000, but it is missing"),
        ("in.txt", b"", "in.txt: expected a file that ends in .parquet, .csv, .jsonl, .ndjson"),
    ],
)
def test_a_file_of_another_kind_is_named(
    bundle: Bundle, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RunError, match=message):
        scored(bundle, tmp_path / name, tmp_path / "out")


def test_nothing_to_score_is_said(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no files that end in"):
        scored(bundle, tmp_path, tmp_path / "out")


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_an_empty_table_is_an_empty_output(bundle: Bundle, tmp_path: Path, kind: str) -> None:
    record = scored(bundle, written(payments(1)[:0], tmp_path / "in", kind), tmp_path / "out")
    assert [(one.rows, one.decided) for one in record.inputs] == [(0, 0)]
    assert (tmp_path / "out" / record.inputs[0].output).is_file()


def command(bundle: Bundle, source: Path, target: Path, *options: str) -> list[str]:
    return [sys.executable, "-P", "-m", "tabserve.cli", "score", str(bundle.path), str(source), str(target), *options]


@pytest.fixture
def undisturbed(bundle: Bundle, tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
    source = tmp_path / "in"
    for part in range(4):
        written(payments(5_000), source / f"part={part}")
    target = tmp_path / "undisturbed"
    subprocess.run(command(bundle, source, target, "--now=2027-01-15"), check=True, capture_output=True)
    return source, outputs(target)


@pytest.mark.long
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(
    bundle: Bundle, tmp_path: Path, undisturbed: tuple[Path, dict[str, bytes]]
) -> None:
    source, expected = undisturbed
    target, kills = tmp_path / "killed", 0
    while not (target / "_tabserve.json").exists():
        running = subprocess.Popen(command(bundle, source, target, "--now=2027-01-15"), stderr=subprocess.PIPE)
        finished = len(list(target.rglob("a-*.parquet")))
        while running.poll() is None and len(list(target.rglob("a-*.parquet"))) == finished:
            os.sched_yield()
        if running.poll() is None:
            running.send_signal(signal.SIGKILL)
            kills += 1
        running.communicate()
        assert running.returncode in (0, -signal.SIGKILL)
        assert all(outputs(target)[name] == expected[name] for name in outputs(target) if name in expected)
    assert kills >= 3
    subprocess.run(command(bundle, source, target, "--now=2027-01-15"), check=True, capture_output=True)
    assert outputs(target) == expected


def test_the_command_says_what_it_did_and_what_was_wrong(bundle: Bundle, tmp_path: Path) -> None:
    source = written(payments(100), tmp_path / "in")
    done = subprocess.run(command(bundle, source, tmp_path / "out"), check=True, capture_output=True, text=True)
    assert "100 decisions and 0 errors of 1 files" in done.stdout
    (tmp_path / "bad.csv").write_text(BAD)
    failed = subprocess.run(
        command(bundle, tmp_path / "bad.csv", tmp_path / "out2"), check=False, capture_output=True, text=True
    )
    assert failed.returncode == 1
    assert "Error: " in failed.stderr
    assert 'row 1, field `amount`: expected a number from 0 to 1000, got "lots"' in failed.stderr
