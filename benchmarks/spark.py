"""`python -m benchmarks.spark`: `tabserve.spark` on Spark here, beside `tabserve score`, into results/spark.

`.venv-spark/bin/python`, which `make long-spark` makes, has Spark. CPU is that of Java and its Python workers together,
in alternation with `tabserve score` on the same file. Of both, what a file of few rows costs is their start and does
not count, nor do Spark's first turns, in which Java compiles its code.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from statistics import median

import click
import msgspec
import psutil
from pyspark.sql import DataFrame, SparkSession

from benchmarks import models, report, score_cpu
from benchmarks.scoring import Compared
from tabserve.spark import score

RESULTS = Path(__file__).parent / "results" / "spark"
WARM_UP = 5
SETTINGS = {
    "spark.sql.execution.arrow.maxRecordsPerBatch": "50000",
    "spark.driver.extraJavaOptions": "-XX:+UseParallelGC",  # the driver's Java is the only one here
}
"""What docs/spark.md recommends."""
LIBRARIES = ("tabserve", "pyspark", "xgboost-cpu", "pyarrow", "numpy")


@click.command(help=__doc__)
@click.option("--rows", type=click.IntRange(10_000), default=500_000, show_default=True, help="In each turn.")
@click.option("--turns", type=click.IntRange(1), default=5, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the results.")
def main(rows: int, turns: int, output: Path) -> None:
    """Measure, write table.md and summary.json, and print the table."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    settings = SETTINGS | {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false"}
    session = SparkSession.builder.master("local[1]").config(map=settings).getOrCreate()
    bundle = models.bundle("payments")
    with tempfile.TemporaryDirectory(prefix="tabserve-bench-") as folder:
        source, few = Path(folder) / "in.parquet", Path(folder) / "few.parquet"
        score_cpu.payments(rows, source)
        score_cpu.payments(score_cpu.FEW, few)
        whole, start = (score(session.read.parquet(str(each)), bundle) for each in (source, few))
        target = Path(folder) / "out"
        for _ in range(WARM_UP):
            _used(whole, target)
        alone: list[float] = []
        spark: list[float] = []
        for turn in range(turns):
            for measured in ("spark", "score") if turn % 2 else ("score", "spark"):
                if measured == "score":
                    alone.append(score_cpu.rate(bundle, source, rows))
                else:
                    used = _used(whole, target) - _used(start, target)
                    spark.append((rows - score_cpu.FEW) / used)
            click.echo(f"turn {turn + 1}: Spark {spark[-1]:,.0f}, score {alone[-1]:,.0f} rows per second of CPU")
    session.stop()
    ratios = [one / other for one, other in zip(spark, alone, strict=True)]
    found = Compared("rows per second of CPU: Spark ÷ `tabserve score`, on Parquet", 0.8, ratios)
    about = {
        **report.about(f".venv-spark/bin/python -m benchmarks.spark --rows {rows} --turns {turns}"),
        "libraries": report.versions(LIBRARIES),
    }
    _write(output, about, found, {"Spark": spark, "`tabserve score`": alone})


def _used(decided: DataFrame, target: Path) -> float:
    """CPU seconds of Java and its workers to write a table."""
    before = _cpu()
    decided.write.mode("overwrite").parquet(str(target))
    return _cpu() - before


def _cpu() -> float:
    """CPU seconds of Java and its workers so far; Spark keeps its workers between the turns."""
    return sum(score_cpu.cpu(each) for each in psutil.Process().children(recursive=True))


def _write(output: Path, about: dict[str, str], found: Compared, rates: dict[str, list[float]]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    content = {"about": about, "figures": [found], "measured": rates}
    (output / "summary.json").write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    spread = f"{min(found.got):.3g} to {max(found.got):.3g}"
    head = ("what", "target", "got", "lowest to highest", "verdict")
    first = report.table(head, [(found.what, f"≥ {found.target:g}", f"{median(found.got):.3g}", spread, found.verdict)])
    rows = [(name, f"{median(got):,.0f}", f"{min(got):,.0f} to {max(got):,.0f}") for name, got in rates.items()]
    second = report.table(("rows per second of CPU", "median", "lowest to highest"), rows)
    page = f"# Spark\n\n{report.facts(about)}\n\n{first}\n\n{second}\n"
    (output / "table.md").write_text(page)
    click.echo(page)


if __name__ == "__main__":
    main()
