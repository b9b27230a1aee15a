"""Pruning a decision log: whole days, single records without a trace, and what was never finished."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from tabserve.cli import main

IDS = [f"customer-{number:04}" for number in range(200)]
FIRST, LAST, SECRET = IDS[0], IDS[-1], IDS[77]
TODAY = datetime.now(UTC).date()


def day(age: int) -> str:
    return f"date={TODAY - timedelta(days=age)}"


def written(path: Path, ids: list[str]) -> Path:
    """A file of records, with the ids in its statistics too, and in a dictionary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"id": ids, "score": [float(number) for number in range(len(ids))]})
    schema = table.schema.with_metadata({"tabserve.format": "1"})
    pq.write_table(table.cast(schema), path, row_group_size=50, compression="none")
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    for age in (0, 1, 30, 31, 200):
        written(tmp_path / "log" / day(age) / "release=r1" / "a.parquet", IDS)
    written(tmp_path / "log" / day(1) / "release=r2" / "b.parquet", [SECRET])
    written(tmp_path / "log" / day(1) / "release=r2" / "c.parquet", ["other"])
    return tmp_path / "log"


def prune(log: Path, *options: str) -> str:
    done = CliRunner().invoke(main, ["log", "prune", str(log), *options])
    assert done.exit_code == 0, done.output
    return done.output


def files(log: Path) -> dict[str, bytes]:
    return {str(one.relative_to(log)): one.read_bytes() for one in log.rglob("*") if one.is_file()}


def ids(log: Path) -> set[str]:
    return {one for path in log.rglob("*.parquet") for one in pq.ParquetFile(path).read().column("id").to_pylist()}


def temporary(log: Path, name: str, hours: float) -> Path:
    """A temporary file that was last written so many hours ago."""
    path = log / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(SECRET.encode())
    os.utime(path, (time.time() - hours * 3600,) * 2)
    return path


def test_whole_days_are_removed(log: Path) -> None:
    told = prune(log, "--older-than", "30d")

    assert sorted(one.name for one in log.iterdir()) == sorted(day(age) for age in (0, 1, 30))
    assert told.splitlines() == [f"{day(age)[5:]}: 1 files removed" for age in (200, 31)]
    assert prune(log, "--older-than", "30d") == f"no day before {TODAY - timedelta(days=30)}\n"


@pytest.mark.parametrize("erased", [[SECRET], [FIRST], [FIRST, LAST, SECRET]])
def test_an_erased_id_leaves_no_trace(log: Path, erased: list[str]) -> None:
    before = ids(log)
    assert all(any(one.encode() in content for content in files(log).values()) for one in erased)
    told = prune(log, *(part for one in erased for part in ("--erase", one)))

    assert ids(log) == before - set(erased)
    assert [name for name, content in files(log).items() for one in erased if one.encode() in content] == []
    for path in log.rglob("*.parquet"):
        metadata = pq.read_metadata(path)
        groups = [metadata.row_group(at).column(0).statistics for at in range(metadata.num_row_groups)]
        assert groups
        assert not {one for group in groups for one in (group.min, group.max)} & set(erased)
        assert metadata.metadata[b"tabserve.format"] == b"1"
    rows = 5 * len(erased) + (SECRET in erased)
    assert told.splitlines()[-1] == f"{rows} records of {len(erased)} ids erased from {5 + (SECRET in erased)} files"


def test_a_file_that_has_no_other_record_is_removed(log: Path) -> None:
    prune(log, "--erase", SECRET)

    assert not (log / day(1) / "release=r2" / "b.parquet").exists()
    assert (log / day(1) / "release=r2" / "c.parquet").exists()


def test_other_records_and_files_stay_as_they_were(log: Path) -> None:
    before = files(log)
    prune(log, "--erase", SECRET)
    after = files(log)

    assert {name for name in after if after[name] == before[name]} == {f"{day(1)}/release=r2/c.parquet"}
    for path in log.rglob("a.parquet"):
        rows = pq.ParquetFile(path).read().to_pylist()
        assert rows == [{"id": one, "score": float(at)} for at, one in enumerate(IDS) if one != SECRET]


def test_temporary_files_that_nobody_finishes_are_removed(log: Path) -> None:
    old = temporary(log, f"{day(0)}/release=r1/_host-1.unfinished", 25)
    new = temporary(log, f"{day(0)}/release=r1/_host-2.unfinished", 23)
    folder = temporary(log, "_unfinished/score-a", 25)

    assert prune(log) == "2 temporary files removed\n"
    assert [path.exists() for path in (old, new, folder)] == [False, True, False]
    assert prune(log) == ""


def test_an_erased_id_is_in_no_temporary_file_either(log: Path) -> None:
    temporary(log, f"{day(0)}/release=r1/_host-1.unfinished", 2)
    temporary(log, f"{day(0)}/release=r1/_a.erased", 0)
    temporary(log, "_unfinished/score-a", 2)
    written_now = temporary(log, f"{day(0)}/release=r1/_host-2.unfinished", 0)
    told = prune(log, "--erase", SECRET)

    assert [name for name, content in files(log).items() if SECRET.encode() in content] == [
        str(written_now.relative_to(log))
    ]
    assert told.splitlines()[-1].startswith("1 files were being written, and may hold the ids")


def test_a_dry_run_only_tells(log: Path) -> None:
    temporary(log, "_unfinished/score-a", 25)
    before = files(log)
    told = prune(log, "--older-than", "30d", "--erase", SECRET, "--dry-run")

    assert files(log) == before
    assert told.count("would be removed") == 3
    assert told.splitlines()[-1] == "4 records of 1 ids would be erased from 4 files"


def test_a_file_of_something_else_is_named(log: Path) -> None:
    (log / day(0) / "other.parquet").write_bytes(b"something else")
    done = CliRunner().invoke(main, ["log", "prune", str(log), "--erase", SECRET])

    assert done.exit_code == 2
    assert f"{day(0)}/other.parquet: no file of decision records" in done.output


def test_what_is_no_log_and_no_duration_is_refused(log: Path, tmp_path: Path) -> None:
    absent = CliRunner().invoke(main, ["log", "prune", str(tmp_path / "absent")])
    wrong = CliRunner().invoke(main, ["log", "prune", str(log), "--older-than", "half a year"])

    assert (absent.exit_code, wrong.exit_code) == (2, 2)
    assert "absent: no such folder" in absent.output
    assert "expected a number of days such as 180d, got 'half a year'" in wrong.output
