"""The decision log's writer: what it keeps, what it counts, and that it never makes a request wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tabserve.arrays import Array
from tabserve.bundle import BundleError
from tabserve.decision_log.entry import Entry
from tabserve.decision_log.files import Files
from tabserve.decision_log.options import Options
from tabserve.decision_log.sampling import place
from tabserve.decision_log.sinks import FolderSink, Sink, sink
from tabserve.decision_log.writer import DecisionLog
from tabserve.inference.metrics import Metrics

CLOSE_SECONDS = 60.0
NOON = 1_780_000_000.0
FAST = Options(file_seconds=3600.0)


def entry(first: int, rows: int = 1, *, decisions: Sequence[str] = (), at: float = NOON, release: str = "r1") -> Entry:
    """An entry with the ids `id-FIRST` and so on."""
    answers = {"decision": np.array(decisions, object)} if decisions else {}
    return Entry(
        request_id="q",
        time=at,
        rows=rows,
        engine="xgboost",
        versions="",
        release=release,
        digest="",
        columns={},
        outputs={"predict": np.arange(first, first + rows, dtype=np.float64)},
        answers=answers,
        ids=np.array([f"id-{number}" for number in range(first, first + rows)], object),
    )


def encode(entries: Sequence[Entry], weights: Sequence[Array]) -> pa.Table:
    """A table of ids and weights."""
    joined = np.concatenate(weights)
    ids = np.concatenate([one.ids for one in entries if one.ids is not None])
    return pa.table({"id": pa.array(ids[joined > 0].tolist(), pa.string()), "weight": joined[joined > 0]})


@dataclass
class Kept:
    """Keeps files in memory; `before` runs first, and may fail or wait."""

    before: Callable[[], None] = lambda: None
    files: dict[str, bytes] = field(default_factory=dict)

    def open(self) -> None:
        """Nothing to do."""

    def write(self, name: str, content: pa.Buffer) -> None:
        self.before()
        self.files[name] = content.to_pybytes()

    def rows(self) -> list[dict[str, Any]]:
        """The records of all files."""
        return [row for content in self.files.values() for row in pq.read_table(pa.BufferReader(content)).to_pylist()]


class Hang:
    """Waits when it is called, until it is released."""

    def __init__(self) -> None:
        self.entered, self.release = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        self.release.wait()


def opened(to: Sink, options: Options = FAST, encoder: Any = encode) -> tuple[DecisionLog, Metrics]:
    metrics = Metrics()
    log = DecisionLog(Files(to), encoder, options, metrics)
    log.start()
    return log, metrics


def samples(metrics: Metrics) -> dict[str, float]:
    """The log's samples by name and result."""
    families = text_string_to_metric_families(metrics.page().decode())
    found = {
        s.name + s.labels.get("result", ""): s.value for family in families for s in family.samples if "log" in s.name
    }
    return {name: value for name, value in found.items() if not name.endswith("_bucket")}


def test_everything_is_written_when_the_log_closes_and_its_metrics_say_so() -> None:
    to = Kept()
    log, metrics = opened(to)
    for first in range(0, 500, 5):
        log.put(entry(first, 5))

    assert log.close(CLOSE_SECONDS)
    assert [row["id"] for row in to.rows()] == [f"id-{number}" for number in range(500)]
    assert {row["weight"] for row in to.rows()} == {1.0}
    assert log.counts == {"written": 500, "sampled": 0, "dropped": 0, "failed": 0}
    found = samples(metrics)
    assert found["tabserve_log_records_totalwritten"] == found["tabserve_log_seconds_count"] == 500
    assert found["tabserve_log_buffer_rows"] == 0


def test_a_file_is_of_one_day_and_one_release_and_is_named_for_them() -> None:
    to = Kept()
    log, _ = opened(to)
    for number, (at, release) in enumerate([(NOON, "r1"), (NOON, "r1"), (NOON + 86_400, "r1"), (NOON + 86_400, "a/b")]):
        log.put(entry(number, at=at, release=release))
    log.put(entry(4, at=NOON, release=""))
    log.close(CLOSE_SECONDS)

    folders = [name.rpartition("/")[0] for name in to.files]
    assert folders == [
        "date=2026-05-28/release=r1",
        "date=2026-05-29/release=r1",
        "date=2026-05-29/release=a%2Fb",
        "date=2026-05-28/release=none",
    ]
    assert all(name.endswith(".parquet") for name in to.files)
    assert len(to.rows()) == 5


def test_a_file_is_finished_by_its_rows() -> None:
    to = Kept()
    log, _ = opened(to, Options(file_rows=300, file_seconds=3600.0))
    for first in range(0, 1000, 100):
        log.put(entry(first, 100))
    log.close(CLOSE_SECONDS)

    counts = [pq.read_metadata(pa.BufferReader(content)).num_rows for content in to.files.values()]
    assert sum(counts) == 1000
    assert all(300 <= count < 400 for count in counts[:-1])
    assert len(counts) >= 2


def test_a_file_is_finished_by_its_age() -> None:
    written = threading.Event()
    log, _ = opened(Kept(written.set), Options(file_seconds=0.0))
    log.put(entry(0))

    assert written.wait(CLOSE_SECONDS)
    assert log.close(CLOSE_SECONDS)
    assert log.counts["written"] == 1


def test_a_full_buffer_drops_and_counts_and_nothing_waits() -> None:
    hang = Hang()
    to = Kept(hang)
    log, metrics = opened(to, Options(buffer_rows=50, file_rows=1))
    log.put(entry(0))
    assert hang.entered.wait(CLOSE_SECONDS)
    for first in range(1, 201):
        log.put(entry(first))
    assert log.counts == {"written": 0, "sampled": 0, "dropped": 150, "failed": 0}
    assert samples(metrics)["tabserve_log_buffer_rows"] == 51
    hang.release.set()

    assert log.close(CLOSE_SECONDS)
    assert [row["id"] for row in to.rows()] == [f"id-{number}" for number in range(51)]
    assert log.counts == {"written": 51, "sampled": 0, "dropped": 150, "failed": 0}


def test_the_buffer_is_bounded_in_bytes() -> None:
    hang = Hang()
    size = entry(10, 10).nbytes
    log, _ = opened(Kept(hang), Options(buffer_bytes=5 * size, file_rows=1))
    log.put(entry(0))
    assert hang.entered.wait(CLOSE_SECONDS)
    for first in range(10, 100, 10):
        log.put(entry(first, 10))
    assert log.counts["dropped"] == 40
    hang.release.set()
    assert log.close(CLOSE_SECONDS)


def test_a_sink_that_hangs_does_not_keep_the_log_from_closing() -> None:
    hang = Hang()
    to = Kept(hang)
    log, _ = opened(to, Options(file_rows=1))
    log.put(entry(0))
    assert hang.entered.wait(CLOSE_SECONDS)
    for first in range(1, 31):
        log.put(entry(first))

    assert not log.close(0.0)
    counts = {"written": 0, "sampled": 0, "dropped": 31, "failed": 0}
    assert log.counts == counts
    log.put(entry(99))
    hang.release.set()
    assert log.close(CLOSE_SECONDS)
    assert log.counts == counts | {"dropped": 32}


def test_a_write_that_fails_is_tried_again_with_the_same_bytes() -> None:
    attempts = []

    def fail_twice() -> None:
        attempts.append(time.monotonic())
        if len(attempts) < 3:
            raise OSError("no space left")

    to = Kept(fail_twice)
    log, _ = opened(to)
    log.put(entry(0, 10))

    assert log.close(CLOSE_SECONDS)
    assert len(attempts) == 3
    assert log.counts == {"written": 10, "sampled": 0, "dropped": 0, "failed": 0}
    assert len(to.rows()) == 10


def test_a_file_is_given_up_when_there_is_no_room_for_what_comes() -> None:
    entered, release, first_gone = threading.Event(), threading.Event(), threading.Event()

    def fail_at_first() -> None:
        if not entered.is_set():
            entered.set()
            release.wait()
            first_gone.set()
            raise OSError("the store is away")

    to = Kept(fail_at_first)
    log, _ = opened(to, Options(buffer_rows=10, file_rows=1))
    log.put(entry(0))
    assert entered.wait(CLOSE_SECONDS)
    for first in range(1, 21):
        log.put(entry(first))
    release.set()
    assert first_gone.wait(CLOSE_SECONDS)

    assert log.close(CLOSE_SECONDS)
    assert log.counts == {"written": 10, "sampled": 0, "dropped": 10, "failed": 1}
    assert [row["id"] for row in to.rows()] == [f"id-{number}" for number in range(1, 11)]


def test_records_that_have_no_form_in_the_file_are_counted_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    def unfit(entries: Sequence[Entry], weights: Sequence[Array]) -> pa.Table:
        return pa.table({"id": pa.array(["secret"], pa.int64())})

    log, _ = opened(Kept(), FAST, unfit)
    log.put(entry(0, 7))

    assert log.close(CLOSE_SECONDS)
    assert log.counts == {"written": 0, "sampled": 0, "dropped": 0, "failed": 7}
    assert "7 decision records have no form in a file: Arrow" in caplog.text
    assert "secret" not in caplog.text


def test_a_sample_is_chosen_by_id_and_weighted_so_that_rates_are_unbiased() -> None:
    to = Kept()
    log, _ = opened(to, Options(sample=0.2, always=("block",), file_seconds=3600.0))
    total, blocked = 20_000, 400
    for first in range(0, total, 100):
        log.put(entry(first, 100, decisions=["block" if number % 50 == 0 else "accept" for number in range(100)]))
    log.close(CLOSE_SECONDS)

    rows, counts = to.rows(), log.counts
    assert counts["written"] == len(rows)
    assert counts["written"] + counts["sampled"] == total
    assert sum(row["weight"] == 1.0 for row in rows) == blocked
    kept = {row["id"] for row in rows if row["weight"] != 1.0}
    assert kept == {f"id-{n}" for n in range(total) if n % 50 and place(f"id-{n}") < 0.2}
    assert sum(row["weight"] for row in rows) == pytest.approx(total, rel=0.03)  # deterministic: ids decide


def test_asking_again_keeps_the_same_records_and_a_larger_sample_keeps_them_too() -> None:
    def kept(sample: float, of: int) -> list[str]:
        to = Kept()
        log, _ = opened(to, Options(sample=sample, file_seconds=3600.0))
        for number in range(of):
            log.put(entry(number))
        log.close(CLOSE_SECONDS)
        return [row["id"] for row in to.rows()]

    assert kept(0.1, 1000) == kept(0.1, 1000)
    assert set(kept(0.1, 1000)) < set(kept(0.3, 1000))
    assert kept(0.0, 100) == []


def test_ids_are_spread_evenly() -> None:
    counts, _ = np.histogram([place(f"payment-{number}") for number in range(50_000)], bins=10, range=(0, 1))

    assert abs(counts - 5_000).max() < 4 * np.sqrt(5_000 * 0.9)


def test_large_files_end_before_they_hold_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def wide(entries: Sequence[Entry], weights: Sequence[Array]) -> pa.Table:
        rows = sum(map(len, entries))
        noise = np.random.default_rng(rows).bytes(20_000)
        return pa.table({"id": pa.array([f"{number}".encode() + noise for number in range(rows)])})

    to = Kept()
    log, _ = opened(to, FAST, wide)
    for first in range(0, 3000, 50):
        log.put(entry(first, 50))
    log.close(CLOSE_SECONDS)

    assert log.counts["written"] == 3000
    assert all(len(content) < 24 * 2**20 for content in to.files.values())


def test_a_folder_holds_whole_files_only(tmp_path: Path) -> None:
    to = sink(str(tmp_path / "log"))
    log, _ = opened(to)
    log.put(entry(0, 20))
    assert log.close(CLOSE_SECONDS)

    files = [path for path in (tmp_path / "log").rglob("*") if path.is_file()]
    assert len(files) == 1
    assert str(files[0].relative_to(tmp_path)).startswith("log/date=2026-05-28/release=r1/")
    assert pq.read_table(files[0], partitioning=None).num_rows == 20


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "date=1").mkdir()
    blocked = tmp_path / "date=1" / "a.parquet"
    blocked.mkdir()
    with pytest.raises(OSError, match=r"a\.parquet"):
        FolderSink(tmp_path).write("date=1/a.parquet", pa.py_buffer(b"x"))

    assert list((tmp_path / "date=1").iterdir()) == [blocked]


@pytest.mark.parametrize(
    ("to", "told"),
    [
        ("http://example.com/x", "cannot write to http://"),
    ],
)
def test_a_place_that_is_none_is_refused(to: str, told: str) -> None:
    with pytest.raises(BundleError, match=told):
        sink(to)


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match=r"file/log: Not a directory. Name a folder that the service may write to."):
        sink(str(tmp_path / "file" / "log"))
