"""Payments as files, and the bundles that decide them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from xgboost import XGBClassifier

import tabserve.train
from tabserve.bundle import Bundle
from tests.serving import ROOT
from tests.unit.bundles import resealed

EXAMPLE = ROOT / "examples" / "payments"
ROWS_AT_ONCE = 250_000


payments = runpy.run_path(str(EXAMPLE / "train.py"))["payments"]
"""The example's own: a number of payments by a seed, and whether each is fraud."""


def records(count: int, seed: int = 11) -> pd.DataFrame:
    """Payments with ids; some incomes are missing, and some countries are none that the schema knows."""
    frame: pd.DataFrame = payments(count, seed)[0]
    random = np.random.default_rng(seed)
    frame["country"] = frame["country"].where(random.random(count) > 0.02, "XX")
    return frame.assign(payment_id=[f"p{seed}-{at}" for at in range(count)])


def as_json(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The records as a client sends them: times by turns in ISO 8601 and in seconds."""
    made: list[dict[str, Any]] = json.loads(
        frame.to_json(orient="records", date_format="iso", date_unit="us", double_precision=15)
    )
    for at, record in enumerate(made):
        for name in ("opened", "paid"):
            if at % 2:
                record[name] = frame[name].iloc[at].timestamp()
    return made


def bundle(folder: Path, *, two_engines: bool = False, trees: int = 200, depth: int = 6) -> Bundle:
    """The example's bundle with an `id`; two_engines: ONNX Runtime for one row, XGBoost for more."""
    folder.mkdir(parents=True, exist_ok=True)
    schema = folder / "schema.yaml"
    text = (EXAMPLE / "schema.yaml").read_text().replace("task: binary", "task: binary\nid: payment_id", 1)
    schema.write_text(text.replace("reasons:\n    top: 3", "reasons:\n    top: 3\n    for: [block, review]"))
    frame, fraud = payments(20_000, 7)
    if two_engines:
        return _two_engines(folder, frame, fraud)
    model = XGBClassifier(
        n_estimators=trees, max_depth=depth, learning_rate=0.08, enable_categorical=True, random_state=0
    )
    model.fit(tabserve.train.features(schema, frame), fraud)
    return tabserve.train.save(model, folder / "bundle", name="payments", version="1", schema=schema, sample=frame)


def _two_engines(folder: Path, frame: pd.DataFrame, fraud: pd.Series[Any]) -> Bundle:
    """A bundle with only numbers, because the converted form takes no categories."""
    schema = folder / "schema.yaml"
    text = schema.read_text()
    fields = "\n".join(line for line in text.splitlines() if not line.startswith("  - {name: c"))
    kept = "\n".join(line for line in fields.splitlines() if line.strip() not in ("- country", "- channel"))
    schema.write_text("\n".join(line for line in kept.splitlines() if not line.startswith("      c")))
    model = XGBClassifier(n_estimators=100, max_depth=4, random_state=0)
    model.fit(tabserve.train.features(schema, frame), fraud)
    made = tabserve.train.save(model, folder / "bundle", name="payments", version="1", schema=schema, sample=frame)
    plan = [{"engine": "onnxruntime", "from_rows": 0}, {"engine": "xgboost", "from_rows": 2}]
    resealed(made.path, lambda contents: contents["model"].update(engines=plan))
    return tabserve.bundle.load(made.path)


def parquet(path: Path, count: int) -> None:
    """Write a Parquet file of `count` payments, in parts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = None
    for seed, start in enumerate(range(0, count, ROWS_AT_ONCE)):
        table = pa.Table.from_pandas(records(min(ROWS_AT_ONCE, count - start), seed), preserve_index=False)
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    assert writer is not None
    writer.close()
