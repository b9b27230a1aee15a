"""Decide a Parquet table with Spark: for `spark-submit`, or `python -m tabserve.spark`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession

from tabserve.options import ALLOW_JOBLIB, THREADS, TRUSTED, VERIFY, trusted_names
from tabserve.scoring.command import REFUSED, instant
from tabserve.spark import score


@click.command()
@click.argument("bundle", metavar="BUNDLE")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("--keep", default="", metavar="COLUMNS", help="Columns of the input to carry along, with commas between.")
@click.option("--now", metavar="TIME", help="What `default: now` becomes, ISO 8601; default: the start of the run.")
@click.option("--on-error", type=click.Choice(["fail", "record"]), default="fail", show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it is there.")
@THREADS
@click.option("--together", is_flag=True, help="Use the engine for many rows; answers may differ in the last bits.")
@click.option("--digest", help="Refuse any bundle but this one, sha256:….")
@VERIFY
@ALLOW_JOBLIB
@TRUSTED
def main(
    bundle: str,
    source: str,
    target: str,
    keep: str,
    now: str | None,
    overwrite: bool,
    trusted: Sequence[str],
    **options: Any,
) -> None:
    """Decide a Parquet table into another.

    BUNDLE is a folder that is on the driver and its executors, or the name of an archive that Spark sends to them. IN
    and OUT are what Spark reads and writes: paths, s3a://, hdfs:// and others. The options are those of `tabserve
    score`; with --on-error record the column `error` says why a row has no decision.
    """
    session = SparkSession.builder.appName(f"tabserve {bundle}").getOrCreate()
    kept = [name for name in keep.split(",") if name]
    try:
        at = time.time() if now is None else instant(now)
        table = session.read.parquet(source)
        made = score(table, bundle, keep=kept, now=at, trusted=trusted_names(trusted), **options)
        made.write.mode("overwrite" if overwrite else "error").parquet(target)
        errors, rows = _counts(session, target)
    except (*REFUSED, AnalysisException) as error:
        raise click.ClickException(str(error)) from None
    finally:
        session.stop()
    click.echo(f"{target}: {rows - errors:,} decisions and {errors:,} errors")


def _counts(session: SparkSession, target: str) -> tuple[int, int]:
    """How many rows of a result have an error, and how many it has; of what was committed."""
    (found,) = session.read.parquet(target).selectExpr("count(error)", "count(*)").collect()
    return int(found[0]), int(found[1])


if __name__ == "__main__":
    main()
