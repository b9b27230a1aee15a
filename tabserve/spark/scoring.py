"""Decide the rows of a Spark table, by a scorer in each Python worker."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import pyarrow as pa
from pyspark.sql import DataFrame

from tabserve.bundle import BundleError
from tabserve.scoring import Scorer
from tabserve.spark.deciding import ERROR, Deciding, OnError, Recipe, decided, load


def score(
    frame: DataFrame,
    bundle: str | os.PathLike[str],
    *,
    keep: Sequence[str] = (),
    on_error: OnError = "record",
    threads: int = 1,
    digest: str | None = None,
    now: float | None = None,
    together: bool = False,
    allow_joblib: bool = False,
    trusted: Sequence[str] = (),
    signed_by: str | os.PathLike[str] | None = None,
) -> DataFrame:
    """The decisions on the rows of a table whose columns are the schema's fields; other columns are ignored.

    Each row has one in the result: the schema's id, the answer, `engine` and `rows` as from `Scorer`, `error` with
    `field`, `expected` and `got` for a row that cannot be decided, and the columns in `keep`.
    bundle: a path that is the same on the driver and its executors, or the name of an archive that Spark sends to them.
    Each Python worker loads it once, and refuses it if its digest is not the one that the driver has found here.
    on_error: `fail` ends the query with the first row that cannot be decided.
    now: what `default: now` becomes, in seconds since 1970; None for the time of this call, on all executors.
    threads: of the model's library, in each worker. The other options are those of `Scorer`.
    Raises BundleError, and InvalidRequest if a field's column is missing or has another type.
    """
    now = time.time() if now is None else now
    asked = Recipe(os.fspath(bundle), digest, now, threads, together, allow_joblib, tuple(trusted))
    found = load(asked, signed_by)
    recipe = asked._replace(digest=found.bundle.digest)
    wanted = _wanted(frame, found, keep)
    chosen = frame.select(*(f"`{name.replace('`', '``')}`" for name in wanted))
    columns = _columns(frame, chosen, found, keep)
    schema = frame.sparkSession.createDataFrame(columns.empty_table()).schema
    return chosen.mapInArrow(Deciding(recipe, keep, columns.names, on_error).batches, schema)


def _wanted(frame: DataFrame, found: Scorer, keep: Sequence[str]) -> list[str]:
    """The columns that are needed, of those that are there. Raises BundleError for a column that cannot be kept."""
    schema = found.bundle.schema
    own = {*found.schema.names, ERROR} - {schema.id, "row"}
    for name in keep:
        if name not in frame.columns:
            raise BundleError("keep", f"there is no column `{name}`", f"Keep any of these: {', '.join(frame.columns)}.")
        if name in own:
            raise BundleError("keep", f"the result has a column `{name}` of its own", "Rename yours in the table.")
    named = [*([schema.id] if schema.id else []), *schema.fields, *keep]
    return [name for name in dict.fromkeys(named) if name in frame.columns]


def _columns(frame: DataFrame, chosen: DataFrame, found: Scorer, keep: Sequence[str]) -> pa.Schema:
    """What the result of no rows is. Raises InvalidRequest for columns that do not fit the schema's fields."""
    given = chosen.limit(0).toArrow().schema
    others = [pa.field(name, pa.null()) for name in frame.columns if name not in given.names]
    return decided(found, pa.RecordBatch.from_pylist([], pa.schema([*given, *others])), keep, "record").schema
