"""A bundle, and decision logs of it, that the monitor's tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tabserve.train
from tabserve.bundle import Bundle
from tabserve.decision_log import record
from tabserve.decision_log.record import Entry

SCHEMA = """\
task: binary
id: key
record:
  - {name: amount, type: number}
  - {name: age, type: number}
  - {name: shop, type: boolean}
  - {name: sex, type: category, values: [f, m, x], use: audit, required: false}
features: [amount, age, shop]
outputs:
  classes: [genuine, fraud]
  decision:
    score: fraud
    bands: [{from: 0.7, label: block}, {from: 0.3, label: review}, {from: 0, label: accept}]
    value: {block: {genuine: -20}, accept: {fraud: -200, genuine: 3}}
"""
FIRST = 20_605
"""2026-06-01, a Monday, in days since 1970."""
NAMES = ("block", "review", "accept")


def records(count: int, seed: int) -> pd.DataFrame:
    """Records with keys; `truth` is what each turned out to be."""
    random = np.random.default_rng(seed)
    amount, age, shop = random.normal(0, 1, count), random.normal(0, 1, count), random.random(count) < 0.4
    chance = 1 / (1 + np.exp(1.5 - 2 * amount - age + 0.5 * shop))
    return pd.DataFrame(
        {
            "key": [f"k{seed}-{at}" for at in range(count)],
            "amount": amount,
            "age": age,
            "shop": shop,
            "sex": random.choice(["f", "m", "x"], count, p=[0.5, 0.45, 0.05]),
            "truth": np.where(random.random(count) < chance, "fraud", "genuine"),
        }
    )


def bundle(folder: Path, **options: Any) -> Bundle:
    """A bundle with what its model answers to held-out records; options: as of `save`, to change that."""
    folder.mkdir(exist_ok=True)
    path = folder / "schema.yaml"
    path.write_text(options.pop("schema", SCHEMA))
    train, test = records(2_000, 1), records(8_000, 2)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(tabserve.train.features(path, train), (train.truth == "fraud").astype(int))
    given = {"held_out": test, "labels": test.truth, "name": "m", "version": "1", "sample": train, **options}
    return tabserve.train.save(model, folder / "bundle", schema=path, **given)


def scores(frame: pd.DataFrame) -> Any:
    """About what the bundle's model answers, and exactly the records' own chance of fraud."""
    return 1 / (1 + np.exp((1.5 - 2 * frame.amount - frame.age + 0.5 * frame.shop).to_numpy(float)))


def log(
    folder: Path,
    saved: Bundle,
    frame: pd.DataFrame,
    day: int,
    *,
    name: str = "pod-1",
    weights: Any = None,
    release: str = "r1",
    digest: str = "",
    source: str = "online",
) -> Path:
    """Write a day's decisions on records as a file of a log, and give its folder."""
    fraud = scores(frame)
    decided = np.array(NAMES[::-1], object)[np.digitize(fraud, [0.3, 0.7])]
    entry = Entry(
        request_id="q",
        time=(day + 0.5) * 86_400,
        rows=1,
        engine="sklearn",
        versions="",
        release=release,
        digest=digest or saved.digest,
        columns={
            "amount": frame.amount.to_numpy(),
            "age": frame.age.to_numpy(),
            "shop": frame["shop"].to_numpy(np.float64),
            "sex": frame.sex.to_numpy(object),
        },
        outputs={"predict_proba": np.stack([1 - fraud, fraud], axis=1)},
        answers={
            "decision": decided,
            "score": fraud,
            "label": np.where(fraud > 0.5, "fraud", "genuine").astype(object),
        },
        ids=frame["key"].to_numpy(object),
        source=source,
    )
    columns = record.schema(saved)
    kept = np.ones(len(frame)) if weights is None else np.asarray(weights, np.float64)
    table = record.table([entry], [kept], columns)
    path = folder / f"day={day}" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return folder


def labels(path: Path, frame: pd.DataFrame) -> Path:
    """Write what records turned out to be."""
    pq.write_table(pa.table({"id": frame["key"].tolist(), "label": frame.truth.tolist()}), path)
    return path
