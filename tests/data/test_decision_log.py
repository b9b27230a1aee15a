"""The decision log of a real transformer: exact counts, however it ends and whatever its sink does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.silent import silent
from tabserve import bundle as bundles
from tabserve.bundle import expected
from tabserve.monitor.run import Run, Subject
from tabserve.monitor.verdict import Tolerances
from tests.data.log import asked, closed, counted, logged, logging, uri, wait_counted
from tests.serving import Service

MODEL = "breast-cancer"
_BIN = re.compile(r'^tabserve_feature_rows_total\{bin="(.+?)",feature="(.+?)"\} ([\d.e+]+)$', re.MULTILINE)
CLOSE_SECONDS = 5.0
END_SECONDS = 30.0
"""How long a service may take to end on a busy machine, besides what its log takes."""


@pytest.fixture(scope="module")
def record(bundle: Path) -> dict[str, Any]:
    return expected.record(bundles.load(bundle), 0)


def test_every_decided_record_is_in_the_log_when_the_service_has_ended(
    bundle: Path, predictor: Service, record: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "log"
    bad = {**record, next(iter(record)): "no number"}
    with logging(bundle, predictor, folder, tmp_path / "transformer.log") as service:
        assert asked(service, MODEL, [record] * 3, 100) == {200}
        assert asked(service, MODEL, [record, bad], 20, "bad") == {400}
        assert asked(service, MODEL, [record], 50, "one") == {200}
        assert sum(counted(service).values()) + service.metric("tabserve_log_buffer_rows") == 350
        assert service.terminate() == 0

    assert closed(service) == {"written": 350, "sampled": 0, "dropped": 0, "failed": 0}
    ids = {f"r{request}/{row}" for request in range(100) for row in range(3)} | {f"one{at}/0" for at in range(50)}
    rows = logged(folder)
    assert len(rows) == 350
    assert {row["id"] for row in rows} == ids
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == {"release=none"}
    assert {path.suffix for path in files} == {".parquet"}


def test_features_are_counted_in_the_bins_that_the_monitor_counts_the_log_in(
    bundle: Path, predictor: Service, tmp_path: Path
) -> None:
    loaded, folder = bundles.load(bundle), tmp_path / "log"
    records = [expected.record(loaded, row) for row in range(60)]
    options = ("--feature_bins=true", "--decision_log_file_rows=110")
    with logging(bundle, predictor, folder, tmp_path / "transformer.log", *options) as service:
        assert asked(service, MODEL, records[:50], 2) == {200}
        assert {status for one in records[50:] for status in asked(service, MODEL, [one], 1)} == {200}
        assert asked(service, MODEL, [{**records[0], "mean radius": "no number"}], 1, "bad") == {400}
        wait_counted(service, "written", 110)
        found = {(name, place): int(float(count)) for place, name, count in _BIN.findall(service.metrics())}
        assert service.terminate() == 0

    running = Run(Subject(loaded, 0.05, Tolerances()), str(folder), None, None)
    running.read(lambda *_: None)
    counts = running.counts
    window = counts.window(counts.first, counts.last + 1)
    features = [(column, rows) for column, (rows, _) in zip(counts.columns, window.cells, strict=True)]
    wanted = [(column.name, column.names, rows.tolist()) for column, rows in features if column.of == "feature"]
    assert found == {
        (name, place): count for name, names, rows in wanted for place, count in zip(names, rows, strict=True)
    }
    assert sum(found.values()) == 110 * len(wanted)


def test_a_store_that_never_answers_costs_records_and_no_request(
    bundle: Path, predictor: Service, record: dict[str, Any], tmp_path: Path
) -> None:
    small = ("--max_rows=50", "--decision_log_buffer_rows=50", "--decision_log_file_rows=1")
    with (
        silent() as port,
        logging(bundle, predictor, uri(port), tmp_path / "transformer.log", *small) as service,
    ):
        assert asked(service, MODEL, [record], 1) == {200}
        assert asked(service, MODEL, [record], 300, "more") == {200}
        wait_counted(service, "dropped", 1)
        started = time.monotonic()
        assert service.terminate() == 0
        took = time.monotonic() - started

    assert took < CLOSE_SECONDS + END_SECONDS
    counts = closed(service)
    assert counts["written"] == 0
    assert sum(counts.values()) == 301


def test_kill_9_loses_at_most_the_open_file(
    bundle: Path, predictor: Service, record: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "_of-an-earlier-life.unfinished").write_bytes(b"cut off")
    with logging(bundle, predictor, folder, tmp_path / "transformer.log", "--decision_log_file_rows=100") as service:
        assert asked(service, MODEL, [record], 250) == {200}
        wait_counted(service, "written", 100)
        assert asked(service, MODEL, [record], 30, "late") == {200}
        written = counted(service)["written"]
        service.kill()

    rows = logged(folder)
    assert written <= len(rows) <= 280
    assert len({row["id"] for row in rows}) == len(rows)
    assert (folder / "_of-an-earlier-life.unfinished").exists()


def test_pruning_that_is_killed_leaves_each_file_old_or_new(tmp_path: Path) -> None:
    folder = tmp_path / "log" / "date=2026-01-01" / "release=r"
    folder.mkdir(parents=True)
    ids = [f"id-{number}" for number in range(100)]
    for number in range(150):
        pq.write_table(pa.table({"id": ids, "file": [number] * 100}), folder / f"{number:03}.parquet")
    before = {path: path.stat().st_ino for path in folder.iterdir()}
    command = [sys.executable, "-P", "-m", "tabserve.cli", "log", "prune", str(tmp_path / "log"), "--erase", "id-50"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while all(path.stat().st_ino == inode for path, inode in before.items()):
        assert process.poll() is None
    process.kill()
    process.wait()

    new = [one for one in ids if one != "id-50"]
    found = [pq.ParquetFile(path).read().column("id").to_pylist() for path in before]
    assert new in found
    assert all(each in (ids, new) for each in found)
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    assert [pq.ParquetFile(path).read().column("id").to_pylist() for path in before] == [new] * 150
    assert {*folder.iterdir()} == {*before}
