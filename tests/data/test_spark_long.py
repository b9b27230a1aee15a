"""Real Spark: each row is decided once though workers are killed, with the bits of `tabserve score`, by one bundle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tabserve.bundle import Bundle, BundleError
from tabserve.inference.errors import InvalidRequest
from tests.data import payments
from tests.docs.blocks import Command, consoles, files
from tests.docs.test_pages import run
from tests.serving import ROOT

pytest.importorskip("pyspark", reason="the extra spark is not installed; make long-spark installs it")
from pyspark.errors import PythonException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import expr

from tabserve.spark import score
from tabserve.spark.deciding import Deciding, Recipe, scorer

pytestmark = pytest.mark.long
ROWS, FILES, COUNT, KILLS = 500_000, 8, 20_000, 3
NOW, NOW_TEXT = 1_800_000_000.0, "2027-01-15T08:00:00Z"
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "PYSPARK_PYTHON": sys.executable,
    "PYSPARK_DRIVER_PYTHON": sys.executable,
    "SPARK_LOCAL_IP": "127.0.0.1",
}
SUBMIT = [str(Path(sys.executable).with_name("spark-submit")), "--conf", "spark.ui.enabled=false"]
JOB = str(ROOT / "tabserve" / "spark" / "__main__.py")
SECONDS = 600.0
DECIDING_SECONDS = 0.2
"""How long a worker has computed, since it had the model's library, when it is killed."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return payments.bundle(tmp_path_factory.mktemp("payments"), trees=100, depth=4)


@pytest.fixture(scope="module")
def spark() -> Generator[SparkSession]:
    os.environ.update({name: ENVIRONMENT[name] for name in ("PYTHONPATH", "PYSPARK_PYTHON", "SPARK_LOCAL_IP")})
    settings = {"spark.ui.enabled": "false", "spark.sql.session.timeZone": "America/New_York"}
    session = SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()


@pytest.fixture
def table(spark: SparkSession, tmp_path: Path) -> DataFrame:
    """Few payments, in two files."""
    parquet(tmp_path / "in", 200, 2)
    return spark.read.parquet(str(tmp_path / "in"))


def parquet(folder: Path, count: int, parts: int) -> None:
    """Write payments into so many files."""
    folder.mkdir()
    for part in range(parts):
        whole = pa.Table.from_pandas(payments.records(count // parts, part), preserve_index=False)
        pq.write_table(whole, folder / f"{part}.parquet", coerce_timestamps="us")


@pytest.fixture(scope="module")
def scored(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pa.Table]:
    """Many payments in files, and what `tabserve score` makes of them."""
    folder = tmp_path_factory.mktemp("scored")
    parquet(folder / "in", ROWS, FILES)
    return folder / "in", tabserve_score(bundle.path, folder / "in", folder / "out")


def tabserve_score(bundle: Path, source: Path, target: Path) -> pa.Table:
    given = map(str, (bundle, source, target, f"--now={NOW_TEXT}"))
    command = [sys.executable, "-P", "-m", "tabserve.cli", "score", *given]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return read(target)


def read(folder: Path) -> pa.Table:
    """The rows of a folder, by their ids."""
    found = pa.concat_tables([pq.read_table(path) for path in folder.glob("*.parquet")])
    return found.sort_by("payment_id")


def verify_same(found: pa.Table, expected: pa.Table) -> None:
    """Each row is decided by Spark as by `tabserve score`."""
    assert [*found.column_names[:-1], "row"] == [*expected.column_names[1:], "row"]
    assert found["error"].null_count == found.num_rows == expected.num_rows
    for name in expected.column_names[1:]:
        assert found[name].cast(expected.schema.field(name).type).equals(expected[name]), name


@pytest.mark.parametrize("cores", [2, 4])
def test_each_row_is_decided_once_though_workers_are_killed(
    bundle: Bundle, scored: tuple[Path, pa.Table], tmp_path: Path, cores: int
) -> None:
    source, expected = scored
    out, log = tmp_path / "out", tmp_path / "log"
    given = map(str, (JOB, bundle.path, source, out, f"--now={NOW_TEXT}"))
    command = [*SUBMIT, "--master", f"local[{cores},{KILLS + 1}]", *given]
    killed: set[int] = set()
    with (
        log.open("wb") as file,
        subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=file, text=True) as process,
    ):
        try:
            while len(killed) < KILLS:
                worker = deciding_worker(process, killed)
                os.kill(worker, signal.SIGKILL)
                killed.add(worker)
            told, _ = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert process.returncode == 0, log.read_text()
    assert told == f"{out}: {ROWS:,} decisions and 0 errors\n"
    assert (out / "_SUCCESS").exists()
    found = read(out)
    distinct = len(found["payment_id"].unique())
    crashed = log.read_text().count("Python worker exited unexpectedly (crashed)")
    print(f"local[{cores}]: {KILLS} workers killed ({crashed} in the log), {found.num_rows} rows, {distinct} distinct")
    assert distinct == ROWS
    verify_same(found, expected)


def deciding_worker(process: subprocess.Popen[str], killed: set[int]) -> int:
    """A worker that decides, and was not killed before."""
    loaded: dict[int, float] = {}
    end = time.monotonic() + SECONDS
    while True:
        assert process.poll() is None, "the job ended before its workers were killed"
        assert time.monotonic() < end, "no worker decides"
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.Error, OSError):  # it has ended
                used = child.cpu_times().user
                decides = child.pid not in killed and has_model(child)
                if decides and used - loaded.setdefault(child.pid, used) > DECIDING_SECONDS:
                    return child.pid


def has_model(process: psutil.Process) -> bool:
    """Whether this is a worker that has loaded the model's library."""
    return "pyspark.daemon" in process.cmdline() and "libxgboost" in Path(f"/proc/{process.pid}/maps").read_text()


@pytest.fixture(scope="module")
def two_engines(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return payments.bundle(tmp_path_factory.mktemp("two"), two_engines=True)


@pytest.mark.parametrize("times", ["timestamps", "texts"])
@pytest.mark.parametrize("kind", ["bundle", "two_engines"])
def test_spark_decides_as_score_does(
    spark: SparkSession, kind: str, times: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Whatever the order of the columns."""
    bundle: Bundle = request.getfixturevalue(kind)
    frame = payments.records(COUNT)
    if times == "texts":
        frame = frame.assign(**{name: frame[name].dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ") for name in ("opened", "paid")})
    (tmp_path / "in").mkdir()
    whole = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(whole, tmp_path / "in" / "a.parquet", coerce_timestamps="us")
    expected = tabserve_score(bundle.path, tmp_path / "in", tmp_path / "out")
    table = spark.read.parquet(str(tmp_path / "in"))
    for columns in (table.columns, sorted(table.columns, reverse=True)):
        made = score(table.select(columns).repartition(7), bundle.path, now=NOW)
        verify_same(made.toArrow().sort_by("payment_id"), expected)
    assert set(expected["rows"].to_pylist()) == {1}


def test_rows_that_cannot_be_decided_say_why_and_the_others_are_decided(table: DataFrame, bundle: Bundle) -> None:
    bad = table.selectExpr("*", "amount AS given").withColumn("amount", expr("IF(amount > 100, -1.0, amount)"))
    rows = score(bad, bundle.path, keep=["given", "country"]).collect()
    assert len(rows) == 200
    wrong = [row for row in rows if row.given > 100]
    assert 0 < len(wrong) < 200
    assert {(row.error.field, row.error.got, row.decision, row.engine) for row in wrong} == {
        ("amount", "-1", None, None)
    }
    assert all(row.error is None and row.decision for row in rows if row.given <= 100)
    assert rows[0].__fields__[-3:] == ["error", "given", "country"]
    with pytest.raises(PythonException, match=r"payment_id p\d+-\d+: field `amount`: expected .*, got -1"):
        score(bad, bundle.path, on_error="fail").collect()


def test_a_table_that_does_not_fit_is_refused_before_anything_is_decided(table: DataFrame, bundle: Bundle) -> None:
    with pytest.raises(InvalidRequest, match=r"column `amount`: expected .*, but it is missing"):
        score(table.drop("amount"), bundle.path)
    with pytest.raises(InvalidRequest, match="column `amount`: expected numbers, got string"):
        score(table.withColumn("amount", expr("string(amount)")), bundle.path)
    with pytest.raises(BundleError, match="keep: there is no column `x`"):
        score(table, bundle.path, keep=["x"])
    with pytest.raises(BundleError, match="keep: the result has a column `score` of its own"):
        score(table.selectExpr("*", "1 AS score"), bundle.path, keep=["score"])


def test_an_executor_refuses_a_bundle_that_is_not_the_driver_s(
    table: DataFrame, bundle: Bundle, tmp_path: Path
) -> None:
    """The query is made with one bundle; when it is run there is another at that place, also if it decides alike."""
    place = tmp_path / "bundle"
    shutil.copytree(bundle.path, place)
    made = score(table, place)
    manifest = place / "bundle.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version": "2"}))
    with pytest.raises(PythonException, match=f"expected digest {bundle.digest}"):
        made.collect()
    with pytest.raises(BundleError, match=f"expected digest {bundle.digest}"):
        score(table, place, digest=bundle.digest)


def test_columns_in_another_order_than_the_driver_s_are_refused(table: DataFrame, bundle: Bundle) -> None:
    """`decision` and `label` are both text, so Spark would swap them unseen."""
    made = score(table, bundle.path)
    names = ["label" if name == "decision" else "decision" if name == "label" else name for name in made.columns]
    recipe = Recipe(str(bundle.path), bundle.digest, NOW, 1, False, False, ())
    with pytest.raises(PythonException, match="Install the same version of tabserve on the driver and its executors"):
        table.mapInArrow(Deciding(recipe, (), names, "record").batches, made.schema).collect()
    assert scorer(recipe) is scorer(recipe)


def test_spark_sends_the_bundle_to_its_executors(spark: SparkSession, table: DataFrame, tmp_path: Path) -> None:
    bundle = payments.bundle(tmp_path / "bundle", trees=10)
    archive = shutil.make_archive(str(tmp_path / "sent"), "zip", bundle.path)
    shutil.rmtree(bundle.path)
    spark.sparkContext.addArchive(f"{archive}#fraud")
    assert score(table, "fraud", digest=bundle.digest).filter("error IS NULL").count() == 200


def test_what_docs_spark_md_shows(tmp_path: Path) -> None:
    pages = [(ROOT / "docs" / name).read_text() for name in ("data.md", "spark.md")]
    for name, content in [each for page in pages for each in files(page).items()]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content.removeprefix(f"# file: {name}\n"))
    run([Command("python train.py", "")], tmp_path, {})
    blocks = consoles(pages[1])
    assert len(blocks) == 2
    for block in blocks:
        run(block, tmp_path, {})
