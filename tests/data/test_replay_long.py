"""100,000 logged decisions of two releases, online and scored, are decided so again; what was altered is found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tabserve.bundle import Bundle
from tests.data import payments
from tests.data.store import CREDENTIALS, Store
from tests.data.test_score_long import peak_mib
from tests.serving import running

pytestmark = pytest.mark.long
ONE_BY_ONE, ONLINE, SCORED = 2_000, 38_000, 10_000
"""How many records each release decides: alone in a request, with others, and from a file."""
MOST_SECONDS, MOST_MIB, MOST_MORE_MIB = 120.0, 600, 100
ALTERED = 12_345


def tabserve(*arguments: object) -> str:
    """What the command prints; it ends with status 0."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tabserve.cli", *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def asked(url: str, folder: Path, count: int, seed: int, batch: int) -> None:
    """Ask about payments in requests of several records."""
    source = folder / f"payments-{seed}.csv"
    payments.records(count, seed).to_csv(source, index=False)
    answers = source.with_suffix(".jsonl")
    tabserve("request", url, "--file", source, "--to", answers, f"--batch={batch}")
    assert len(answers.read_text().splitlines()) == count


def decided(bundle: Bundle, log: Path, folder: Path, seed: int) -> None:
    """Decide online and from a file, into one log."""
    folder.mkdir()
    both = (f"--model_dir={bundle.path}", f"--release=r-{seed}")
    with running("tabserve_predictor", *both, log=folder / "predictor.log") as predictor:
        own = (f"--predictor_host=127.0.0.1:{predictor.http_port}", f"--decision_log={log}")
        with running("tabserve_transformer", *both, *own, log=folder / "transformer.log") as transformer:
            asked(transformer.url, folder, ONE_BY_ONE, seed, batch=1)
            asked(transformer.url, folder, ONLINE, seed + 1, batch=500)
            assert transformer.terminate() == 0
    source = folder / "scored.parquet"
    pq.write_table(pa.Table.from_pandas(payments.records(SCORED, seed + 2), preserve_index=False), source)
    tabserve("score", bundle.path, source, folder / "decided", "--log", log)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    """Two releases: one engine for every size, and another for one record than for more."""
    folder = tmp_path_factory.mktemp("bundles")
    return [
        payments.bundle(folder / "one", trees=50, depth=4),
        payments.bundle(folder / "two", two_engines=True),
    ]


@pytest.fixture(scope="module")
def log(bundles: list[Bundle], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    for at, bundle in enumerate(bundles):
        decided(bundle, folder / "log", folder / str(at), seed=10 * at)
    return folder / "log"


def start(log: Path | str, bundles: list[Bundle], *options: str) -> subprocess.Popen[str]:
    given = [text for bundle in bundles for text in ("--bundle", str(bundle.path))]
    command = [sys.executable, "-P", "-m", "tabserve.cli", "log", "replay", str(log), *given, *options]
    environment = {**os.environ, **CREDENTIALS}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def replayed(log: Path, bundles: list[Bundle], status: int) -> dict[str, Any]:
    process = start(log, bundles, "--json")
    out, err = process.communicate(timeout=600)
    assert process.returncode == status, out + err
    found: dict[str, Any] = json.loads(out)
    return found


def test_every_decision_is_made_again_and_is_equal(log: Path, bundles: list[Bundle]) -> None:
    started = time.monotonic()
    process = start(log, bundles, "--json")
    peak, seconds = peak_mib(process), time.monotonic() - started
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    found = json.loads(out)
    print(f"{found['records']:,} decisions in {seconds:.0f} s, peak {peak:.0f} MiB")
    assert (found["records"], found["equal"]) == (2 * (ONE_BY_ONE + ONLINE + SCORED),) * 2
    assert {one["digest"] for one in found["releases"]} == {bundle.digest for bundle in bundles}
    assert seconds < MOST_SECONDS
    assert peak < MOST_MIB


def test_memory_does_not_grow_with_the_log(log: Path, bundles: list[Bundle], tmp_path: Path) -> None:
    peaks = []
    for copies in (1, 4):
        for number in range(copies):
            shutil.copytree(log, tmp_path / str(number), dirs_exist_ok=True)
        process = start(tmp_path, bundles)
        peaks.append(peak_mib(process))
        assert f"{copies}00,000 equal, 0 differ" in process.communicate()[0]
    print(f"peak {peaks[0]:.0f} MiB, and {peaks[1]:.0f} MiB for four times as many")
    assert peaks[1] < peaks[0] + MOST_MORE_MIB


def altered(log: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> tuple[Path, str]:
    """A copy of the log in one file each, in which one record is changed, and that record's id."""
    identity = ""
    for number, path in enumerate(sorted(log.rglob("*.parquet"))):
        found = pq.read_table(path, partitioning=None)
        if not identity and found.num_rows > 100:
            (row,) = found.slice(ALTERED % found.num_rows, 1).to_pylist()
            change(row)
            identity = row["id"]
            at = ALTERED % found.num_rows
            one = pa.Table.from_pylist([row], found.schema)
            found = pa.concat_tables([found.slice(0, at), one, found.slice(at + 1)])
        folder.mkdir(exist_ok=True)
        pq.write_table(found, folder / f"{number}.parquet", compression="zstd")
    return folder, identity


def flip_a_bit(row: dict[str, Any]) -> None:
    bits = np.array([row["score"]]).view(np.int64) ^ 1
    row["score"] = float(bits.view(np.float64)[0])


def alter_a_field(row: dict[str, Any]) -> None:
    row["record"]["amount"] = 99_000.0 if row["record"]["amount"] < 1_000 else 1.0


@pytest.mark.parametrize(("change", "what"), [(flip_a_bit, ["score"]), (alter_a_field, ["outputs.predict_proba"])])
def test_one_altered_decision_of_all_is_found_and_named(
    log: Path, bundles: list[Bundle], tmp_path: Path, change: Callable[[dict[str, Any]], None], what: list[str]
) -> None:
    copy, identity = altered(log, tmp_path / "copy", change)
    found = replayed(copy, bundles, status=1)
    assert (found["differs"], found["not_replayable"]) == (1, 0)
    (one,) = found["differences"]
    assert one["id"] == identity
    assert [each["what"] for each in one["differences"]][: len(what)] == what


def test_another_bundle_in_the_place_of_one_is_named(log: Path, bundles: list[Bundle], tmp_path: Path) -> None:
    other = payments.bundle(tmp_path / "other", trees=51, depth=4)
    found = replayed(log, [other, bundles[1]], status=2)
    half = ONE_BY_ONE + ONLINE + SCORED
    assert (found["equal"], found["differs"], found["not_replayable"]) == (half, 0, half)
    whys = {why for one in found["releases"] for why in one["not_replayable"]}
    assert whys == {
        f"none of the bundles has the digest {bundles[0].digest}; given: {other.digest}, {bundles[1].digest}"
    }


def test_a_log_in_an_object_store_is_replayed_where_it_is(log: Path, bundles: list[Bundle], tmp_path: Path) -> None:
    shutil.copytree(log, tmp_path / "s3" / "lake" / "log")
    store = Store(tmp_path / "s3")
    store.start()
    try:
        out, err = start(store.uri("lake/log"), bundles).communicate(timeout=600)
    finally:
        store.stop()
    assert "100,000 decisions: 100,000 equal, 0 differ, 0 not replayable" in out, err
