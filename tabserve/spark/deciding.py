"""Decide the Arrow batches of a Spark partition, in a Python worker of an executor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from pyspark import SparkFiles

from tabserve.bundle import BundleError
from tabserve.inference.errors import InvalidRequest
from tabserve.scoring import Scorer

OnError: TypeAlias = Literal["fail", "record"]
ERROR = "error"
"""The column that says why a row has no decision; null for the others."""
_PARTS = [pa.field("field", pa.string()), pa.field("expected", pa.string()), pa.field("got", pa.string())]
_MOST_SCORERS = 4


class Recipe(NamedTuple):
    """What a worker makes its scorer of: the bundle's place and the driver's digest, and options of `Scorer`."""

    bundle: str
    digest: str | None
    now: float
    threads: int
    together: bool
    allow_joblib: bool
    trusted: tuple[str, ...]


def folder(bundle: str) -> Path:
    """The bundle's folder on this machine: at this path, or what Spark has unpacked under this name."""
    path = Path(bundle)
    return path if path.exists() else Path(SparkFiles.get(bundle))


@lru_cache(_MOST_SCORERS)
def scorer(recipe: Recipe) -> Scorer:
    """The scorer of this process, loaded once. Raises BundleError."""
    return load(recipe)


def load(recipe: Recipe, signed_by: str | PathLike[str] | None = None) -> Scorer:
    """Load a scorer; signed_by: as for `tabserve.bundle.load`. Raises BundleError."""
    options = recipe._asdict()
    return Scorer(folder(options.pop("bundle")), **options, signed_by=signed_by)


class Deciding:
    """Decides the batches of partitions; it goes to the workers with the query.

    keep: columns to carry along. columns: the names that the driver expects, in their order.
    on_error: whether a row that cannot be decided ends the query, or is explained in its column `error`.
    """

    def __init__(self, recipe: Recipe, keep: Sequence[str], columns: Sequence[str], on_error: OnError) -> None:
        self._recipe, self._keep, self._columns, self._on_error = recipe, tuple(keep), list(columns), on_error

    def batches(self, given: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The decided rows of each batch. Raises BundleError and InvalidRequest."""
        deciding = scorer(self._recipe)
        for batch in given:
            made = decided(deciding, batch, self._keep, self._on_error)
            verify_columns(made.schema.names, self._columns)
            yield made


def verify_columns(made: Sequence[str], expected: Sequence[str]) -> None:
    """Raise BundleError unless the names are the expected ones in their order.

    Spark goes by position, so two columns of one type would swap unseen.
    """
    if list(made) != list(expected):
        problem = f"the driver expects the columns {', '.join(expected)}, a worker made {', '.join(made)}"
        raise BundleError("spark", problem, "Install the same version of tabserve on the driver and its executors.")


def decided(deciding: Scorer, batch: pa.RecordBatch, keep: Sequence[str], on_error: OnError) -> pa.RecordBatch:
    """Each row of a batch in its place: id, answer, `engine`, `rows`, `error`, and the kept columns.

    Raises InvalidRequest if a column does not fit, or for the first row that cannot be decided, if that ends the query.
    """
    scored, errors = deciding.score(batch)
    identity = deciding.bundle.schema.id
    columns: dict[str, pa.Array] = {}
    if identity is not None:
        known = identity in batch.schema.names
        columns[identity] = batch.column(identity).cast(pa.string()) if known else _nothing(batch)
    if errors.num_rows and on_error == "fail":
        raise InvalidRequest(_told(errors.slice(0, 1).to_pylist()[0], identity, columns))
    answers = _spread(scored, batch.num_rows)
    columns |= {name: answers.column(name) for name in answers.schema.names if name not in ("row", identity)}
    faults = _spread(errors, batch.num_rows)
    parts = [faults.column(part.name) for part in _PARTS]
    columns[ERROR] = pa.StructArray.from_arrays(parts, fields=_PARTS, mask=faults.column("row").is_null())
    columns |= {name: batch.column(name) for name in keep}
    return pa.RecordBatch.from_pydict(columns)


def _nothing(batch: pa.RecordBatch) -> pa.Array:
    return pa.nulls(batch.num_rows, pa.string())


def _spread(rows: pa.RecordBatch, count: int) -> pa.RecordBatch:
    """Rows at the positions that their column `row` names, and nulls between them."""
    places = np.full(count, -1)
    places[rows.column("row").to_numpy()] = np.arange(rows.num_rows)
    return rows.take(pa.array(places, mask=places < 0))


def _told(error: dict[str, str | int], identity: str | None, ids: dict[str, pa.Array]) -> str:
    """An error with the id of its record, if there is one."""
    record = f"{identity} {ids[identity][error['row']].as_py()}: " if identity else ""
    field = f"field `{error['field']}`: " if error["field"] else ""
    return f"{record}{field}expected {error['expected']}, got {error['got']}"
