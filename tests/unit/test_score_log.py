"""`tabserve score --log`: the records that the services would have logged, each once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from xgboost import XGBClassifier

import tabserve.train
from tabserve.bundle import Bundle
from tabserve.cli import main
from tabserve.decision_log.replay import replay
from tabserve.decision_log.replayer import Replayer
from tabserve.decision_log.scored import opener
from tabserve.inference.model import Context
from tabserve.scoring import Scorer
from tabserve.scoring.run import Options, Record, run
from tests.unit.cores import Cores
from tests.unit.test_recording import Kept
from tests.unit.test_score import NOW, SCHEMA, payments, written

pytestmark = pytest.mark.anyio
SECRET = "a-canary-of-a-note"
WITH_NOTE = SCHEMA.replace(
    "features:", "  - {name: note, type: text, required: false, use: audit, logged: hash}\nfeatures:"
).replace("{top: 2,", "{top: 2, codes: {amount: A01},")


def frame(count: int) -> pd.DataFrame:
    return payments(count).assign(paid=np.datetime64("2026-06-01T12:00:00.25"), note=SECRET)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("score")
    path = folder / "schema.yaml"
    path.write_text(WITH_NOTE)
    given = frame(300)
    model = XGBClassifier(n_estimators=10, enable_categorical=True)
    model.fit(tabserve.train.features(path, given), (given.amount > 500).astype(int))
    return tabserve.train.save(model, folder / "bundle", name="payments", version="1", schema=path, sample=given)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_text("0123456789abcdef")
    return str(path)


def scored(bundle: Bundle, folder: Path, key: str, **options: Any) -> Record:
    """Score `in` into `out`, with a log in `log`."""
    given = Options(**{"now": NOW, **options})
    source, target = str(folder / "in"), str(folder / "out")
    open_log = opener(str(folder / "log"), key)
    return run(lambda now: Scorer(bundle.path, now=now), source, target, given, lambda *_: None, open_log)


def logged(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in files(folder):
        rows += pq.ParquetFile(path).read().to_pylist()
    return rows


def files(folder: Path) -> list[Path]:
    return sorted((folder / "log").rglob("*.parquet"))


async def test_the_records_are_those_of_the_services(bundle: Bundle, key: str, tmp_path: Path) -> None:
    given = frame(60)
    given.loc[3, "payment"] = None
    written(given, tmp_path / "in", "parquet", "csv", "jsonl")
    run_record = scored(bundle, tmp_path, key)
    rows = logged(tmp_path)

    online = Kept()
    cores = Cores(bundle, online, decision_log_hash_key_file=key)
    records = orjson.loads(given.to_json(orient="records", date_format="iso", date_unit="us", double_precision=15))
    for each in records:
        await cores.transformer.predict(orjson.dumps({"instances": [each]}), Context(trace={"x-request-id": "r-7"}))
    same = ("record", "outputs", "decision", "score", "label", "reasons", "codes", "rows", "engine", "versions")
    expected = [{name: row[name] for name in same} for row in online.rows(bundle)]
    assert [{name: row[name] for name in same} for row in rows] == 3 * expected
    assert [row["id"] for row in rows[2:5]] == ["p2", "a.parquet/3", "p4"]
    assert rows[2]["source"] == f"file://{tmp_path}/in/a.parquet#2"
    assert {row["digest"] for row in rows} == {bundle.digest}
    (time,) = {row["time"].timestamp() for row in rows}
    assert time == pytest.approx(run_record.logged, abs=1e-6)


@pytest.mark.parametrize("together", [False, True])
def test_the_records_replay(bundle: Bundle, key: str, tmp_path: Path, together: bool) -> None:
    written(frame(60), tmp_path / "in", "parquet", "csv")
    open_log = opener(str(tmp_path / "log"), key)
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    options = Options(now=NOW, together=together)
    run(lambda now: Scorer(bundle.path, now=now, together=together), source, target, options, lambda *_: None, open_log)
    found = replay(str(tmp_path / "log"), [Replayer(bundle.path)])
    assert (found.records, found.equal) == (120, 120)
    assert {row["rows"] for row in logged(tmp_path)} == {60 if together else 1}


def test_hashed_values_are_nowhere_in_the_log(bundle: Bundle, key: str, tmp_path: Path) -> None:
    written(frame(20), tmp_path / "in")
    scored(bundle, tmp_path, key)
    (path,) = files(tmp_path)
    assert {len(row["record"]["note"]) for row in logged(tmp_path)} == {64}
    uncompressed = pa.BufferOutputStream()
    pq.write_table(pq.ParquetFile(path).read(), uncompressed, compression="none", use_dictionary=False)
    assert SECRET.encode() not in uncompressed.getvalue().to_pybytes()


def test_rows_without_a_decision_are_not_logged(bundle: Bundle, key: str, tmp_path: Path) -> None:
    given = frame(20)
    given.loc[[0, 7], "amount"] = -1.0
    given.loc[9, "web"] = not given.web[9]
    written(given, tmp_path / "in")
    scored(bundle, tmp_path, key, on_error="record", where="amount < 500")
    rows = logged(tmp_path)
    assert [row["row"] for row in rows] == np.flatnonzero((given.amount < 500) & (given.amount >= 0)).tolist()
    assert [row["record"]["amount"] for row in rows] == given.amount[[row["row"] for row in rows]].tolist()


def test_a_rerun_writes_no_record_twice(bundle: Bundle, key: str, tmp_path: Path) -> None:
    written(frame(20), tmp_path / "in", "parquet", "csv")
    scored(bundle, tmp_path, key)
    before = {path: path.read_bytes() for path in files(tmp_path)}
    scored(bundle, tmp_path, key)
    assert {path: path.read_bytes() for path in files(tmp_path)} == before

    # As if killed when the log's first file was whole, and its output was not.
    done = tmp_path / "out" / "_tabserve.json"
    (tmp_path / "out" / "_progress.json").write_text(json.dumps(json.loads(done.read_text()) | {"inputs": []}))
    for path in [done, *(tmp_path / "out").glob("*.parquet"), *(tmp_path / "out").glob("*.csv"), files(tmp_path)[1]]:
        path.unlink()
    scored(bundle, tmp_path, key)
    assert {path: path.read_bytes() for path in files(tmp_path)} == before


def test_a_run_that_fails_leaves_no_records_of_the_input(bundle: Bundle, key: str, tmp_path: Path) -> None:
    given = frame(20)
    written(given.assign(amount=-1.0), tmp_path / "in")
    source, target, log = str(tmp_path / "in"), str(tmp_path / "out"), str(tmp_path / "log")
    command = ["score", str(bundle.path), source, target, "--log", log, "--hash-key-file", key]
    failed = CliRunner().invoke(main, command)
    assert (failed.exit_code, files(tmp_path)) == (1, [])
    written(given, tmp_path / "in")
    assert CliRunner().invoke(main, command).exit_code == 0
    assert len(logged(tmp_path)) == 20


def test_a_log_that_hashes_needs_a_key(bundle: Bundle, tmp_path: Path) -> None:
    written(frame(5), tmp_path / "in")
    command = ["score", str(bundle.path), str(tmp_path / "in"), str(tmp_path / "out"), "--log", str(tmp_path / "log")]
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 1
    assert "--hash-key-file: not set, and the schema hashes the field `note`. Set it to a file" in refused.output
