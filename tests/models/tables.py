"""The tables that models are trained on, as pandas gives them, and the schemas that describe their records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

ROWS = 160
TRAINING = 120
COUNTRIES = ("DE", "FR", "IT", "PL")

_SEVERAL = "task: regression\n{}outputs: {{targets: [first, second]}}\n"
_SCHEMAS = {
    "binary": "task: binary\n{}outputs: {{classes: ['no', 'yes']}}\n",
    "multiclass": "task: multiclass\n{}outputs: {{classes: [high, low, middle]}}\n",
    "numbered": "task: multiclass\n{}outputs: {{classes: [low, middle, high]}}\n",
    "clusters": "task: multiclass\n{}",
    "regression": "task: regression\n{}",
    "rate": "task: regression\n{}",
    "several": _SEVERAL,
    "quantiles": _SEVERAL,
    "labels": "task: binary\n{}",
    "anomaly": "task: anomaly\n{}",
}
"""What can be learnt, and the schema of a model that did."""


class Table(NamedTuple):
    """Records; the first `TRAINING` are for training and saving, all are for asking."""

    fields: tuple[str, ...]
    frame: pd.DataFrame

    @property
    def training(self) -> pd.DataFrame:
        """The rows a model is trained on."""
        return self.frame.iloc[:TRAINING]

    def records(self) -> list[dict[str, Any]]:
        """All rows as a client sends them; null where there is no value."""
        columns = {str(name): [_json(value) for value in self.frame[name].tolist()] for name in self.frame}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def schema(self, learnt: str) -> str:
        """The text of schema.yaml for a model that learnt this of the records."""
        lines = "".join(f"  - {{{field}}}\n" for field in self.fields)
        return _SCHEMAS[learnt].format(f"record:\n{lines}features: [{', '.join(self.frame.columns)}]\n")


def numbers() -> Table:
    """Four numbers from 0 to 1."""
    random = np.random.default_rng(1)
    names = ["a", "b", "c", "d"]
    return _table(
        [f"name: {name}, type: number" for name in names], pd.DataFrame(random.random((ROWS, 4)), None, names)
    )


def one_number() -> Table:
    """A single number."""
    return Table(numbers().fields[:1], numbers().frame[["a"]])


def counts() -> Table:
    """Four whole numbers from 0 to 3."""
    frame = (numbers().frame * 4).astype(int)
    return _table([f"name: {name}, type: integer, min: 0, max: 3" for name in frame], frame)


def mixed() -> Table:
    """Numbers, a whole number, a boolean and a category; a number and the category have missing values."""
    random = np.random.default_rng(2)
    frame = pd.DataFrame(
        {
            "amount": random.gamma(2, 50, ROWS).round(2),
            "income": np.where(random.random(ROWS) < 0.2, np.nan, random.normal(3000, 500, ROWS)),
            "children": random.integers(0, 4, ROWS),
            "active": random.random(ROWS) < 0.5,
            "country": random.choice([*COUNTRIES[:3], np.nan], ROWS, p=[0.4, 0.3, 0.2, 0.1]).astype(object),
        }
    )
    frame["country"] = frame["country"].where(frame["country"] != "nan", np.nan)
    fields = [
        "name: amount, type: number, min: 0",
        "name: income, type: number, required: false",
        "name: children, type: integer, min: 0, max: 3",
        "name: active, type: boolean",
        f"name: country, type: category, values: [{', '.join(COUNTRIES[:3])}], required: false",
    ]
    return _table(fields, frame)


TABLES = {"numbers": numbers, "counts": counts, "one number": one_number, "mixed": mixed}


def target(table: Table, learnt: str) -> Any:
    """The target for the training rows: numbers above 0, or something made from them."""
    frame = table.training
    ranks = [pd.to_numeric(frame[name].fillna(0)).rank(pct=True) for name in frame if frame[name].dtype != object]
    value = np.sum([rank.to_numpy() for rank in ranks], axis=0) + np.random.default_rng(3).normal(0, 0.1, len(frame))
    if "country" in frame:
        value += (frame["country"] == "IT").to_numpy() - 0.5 * frame["country"].isna().to_numpy()
    value = value - value.min() + 0.1
    third = np.digitize(value, np.quantile(value, [1 / 3, 2 / 3]))
    learnable = {
        "binary": (value > np.median(value)).astype(int),
        "numbered": third,
        "multiclass": np.array(["low", "middle", "high"])[third],
        "rate": value / value.max(),
        "labels": np.column_stack([value > np.median(value), value > value.mean()]).astype(int),
        "several": np.column_stack([value, value[::-1]]),
    }
    return learnable.get(learnt, value)


def _table(fields: Sequence[str], frame: pd.DataFrame) -> Table:
    return Table(tuple(fields), frame)


def _json(value: Any) -> Any:
    return None if pd.isna(value) else value
