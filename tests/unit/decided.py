"""Decision logs, written from the answers of both services' cores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tabserve import engines
from tabserve.bundle import Bundle
from tabserve.bundle.outputs import of_engine
from tabserve.decision_log import record
from tabserve.decision_log.entry import Entry
from tabserve.inference.tensors import Tensor
from tabserve.schema.records import Records
from tests.unit.cores import Cores

TIME = 1_796_000_000.5
ANSWERS = ("decision", "score", "label", "reasons", "codes")


def entries(bundle: Bundle, frame: pd.DataFrame, size: int, *outputs: str, release: str = "a-1") -> Iterator[Entry]:
    """What the services answer to requests of `size` records, whose fields are numbers."""
    cores, plan, checked = Cores(bundle), engines.load(bundle), Records(bundle.schema)
    names = [each.name for each in record.schema(bundle) if each.name in ANSWERS and each.name != "codes"]
    for start in range(0, len(frame), size):
        part = frame[start : start + size]
        given = [Tensor(str(name), "FP64", column.to_numpy(np.float64)) for name, column in part.items()]
        made = cores.outputs(part, *outputs, *names)
        yield Entry(
            request_id=f"r-{start}",
            time=TIME + start,
            rows=len(part),
            engine=plan.select(len(part), of_engine(outputs)).name,
            versions="tabserve 1",
            release=release,
            digest=bundle.digest,
            columns=checked.from_tensors(given),
            outputs={name: made[name] for name in outputs},
            answers={name: made[name] for name in names},
        )


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
