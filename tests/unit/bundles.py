"""Records, schemas and bundles that the tests of bundles and engines share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import tabserve.train
from tabserve.bundle import Bundle

CLASSES = {"binary": "[accept, fraud]", "multiclass": "[low, middle, high]"}
ROWS = 700


def records() -> pd.DataFrame:
    """Records, always the same; `income` is missing in a fifth of them."""
    random = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "amount": random.gamma(2, 50, ROWS).round(2),
            "country": random.choice(["DE", "FR", "IT"], ROWS),
            "income": np.where(random.random(ROWS) < 0.2, np.nan, random.normal(3000, 500, ROWS)),
            "age": random.integers(18, 90, ROWS).astype(float),
        }
    )


def target(task: str) -> pd.Series[Any]:
    """The target to learn from the records."""
    given = records()
    value = given.amount / 100 + (given.country == "IT") * 1.5 - given.age / 60 + given.income.fillna(4000) / 4000 + 2
    if task == "regression":
        return value
    return (value > value.median()).astype(int) if task == "binary" else pd.qcut(value, 3, labels=False)


def schema(folder: Path, task: str = "binary", *, fields: tuple[str, ...] = ("amount", "age"), extra: str = "") -> Path:
    """A schema.yaml with some of the records' fields; `extra` holds lines below `outputs`."""
    known = {
        "amount": "{name: amount, type: number, min: 0}",
        "country": "{name: country, type: category, values: [DE, FR, IT]}",
        "income": "{name: income, type: number, required: false}",
        "age": "{name: age, type: number}",
    }
    classes = f"  classes: {CLASSES[task]}\n" if task in CLASSES else "  default: []\n"
    lines = "".join(f"  - {known[name]}\n" for name in fields)
    path = folder / "schema.yaml"
    path.write_text(f"task: {task}\nrecord:\n{lines}features: [{', '.join(fields)}]\noutputs:\n{classes}{extra}")
    return path


def saved(
    model: Any, folder: Path, task: str = "binary", *, fields: tuple[str, ...] = ("amount", "age"), **options: Any
) -> Bundle:
    """A bundle with a model that is fitted here on the records."""
    path = schema(folder, task, fields=fields, extra=options.pop("extra", ""))
    model.fit(tabserve.train.features(path, records()), target(task))
    options = {"name": "m", "version": "1", "sample": records(), **options}
    return tabserve.train.save(model, folder / "bundle", schema=path, **options)


def resealed(folder: Path, change: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Correct the manifest after files changed, as someone who tampers with a bundle would."""
    path = folder / "bundle.json"
    contents = json.loads(path.read_text())
    contents["files"] = {
        one.name: {"sha256": hashlib.sha256(one.read_bytes()).hexdigest(), "size": one.stat().st_size}
        for one in folder.iterdir()
        if one.name != "bundle.json"
    }
    if change is not None:
        change(contents)
    path.write_text(json.dumps(contents))
