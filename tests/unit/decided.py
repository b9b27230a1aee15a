"""Decision logs, written from the answers of both services' cores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tabserve.bundle import Bundle
from tabserve.decision_log import record
from tabserve.decision_log.entry import Entry
from tests.unit.cores import Cores

TIME = 1_796_000_000.5


class Kept(list[Entry]):
    """A log that keeps its entries."""

    def put(self, entry: Entry) -> None:
        self.append(entry)


def entries(bundle: Bundle, frame: pd.DataFrame, size: int, *outputs: str, **settings: Any) -> Iterator[Entry]:
    """What the transformer puts into its log for requests of `size` records.

    outputs: to ask for over V2, with records of numbers; without any, V1 is asked. settings: the transformer's.
    """
    log = Kept()
    cores = Cores(bundle, log, **{"release": "a-1", **settings})
    for start in range(0, len(frame), size):
        part = frame[start : start + size]
        if outputs:
            cores.outputs(part, *outputs)
        else:
            cores.predictions(part)
        ids = log[-1].ids if bundle.schema.id else None
        yield msgspec.structs.replace(log[-1], request_id=f"r-{start}", time=TIME + start, ids=ids)


def table(bundle: Bundle, *given: Entry) -> pa.Table:
    """The entries' records."""
    return record.table(given, [np.ones(len(each)) for each in given], record.schema(bundle))


def written(found: pa.Table, log: Path, name: str = "pod-1") -> Path:
    """A file of the log, in the folder of its day and release."""
    release = found["release"][0].as_py() if found.num_rows else "none"
    path = log / "date=2026-11-29" / f"release={release}" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(found, path, compression="zstd")
    return path


def changed(found: pa.Table, column: str, at: int, value: Any) -> pa.Table:
    """The table with another value in one record; `record.amount` and the like are fields of a struct."""
    rows = found.to_pylist()
    *outer, last = column.split(".")
    inside = rows[at]
    for each in outer:
        inside = inside[each]
    inside[last] = value
    return pa.Table.from_pylist(rows, found.schema)
