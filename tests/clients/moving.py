"""Small models of each library and task, as their users have them, to be moved from another server to tabserve."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import joblib
import lightgbm
import numpy as np
import pandas as pd
import xgboost
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tabserve.train
from tabserve.arrays import Array
from tabserve.bundle import Bundle

FEATURES = ("amount", "age", "income")
ROWS = 200
CLASSES = {"binary": "[refuse, accept]", "multiclass": "[low, middle, high]"}


class Moved(NamedTuple):
    """A fitted model: its library, task, and file for the other server."""

    library: str
    task: str
    model: Any

    @property
    def name(self) -> str:
        return f"{self.library}-{self.task}"

    @property
    def file(self) -> str:
        """The name of its file: each library's own form, as the other servers load it."""
        return {"sklearn": "model.joblib", "xgboost": "model.json", "lightgbm": "model.bst"}[self.library]

    def write(self, folder: Path) -> Path:
        """Write its file as its user would."""
        path = folder / self.file
        if self.library == "sklearn":
            joblib.dump(self.model, path)
        else:
            getattr(self.model, "booster_", self.model).save_model(path)
        return path

    def bundle(self, folder: Path) -> Bundle:
        """Save it as a bundle."""
        names = np.unique(target("multiclass", texts=True)).tolist() if "text" in self.task else None
        task = self.task.removesuffix("-texts")
        classes = f"classes: {names or CLASSES[task]}" if task in CLASSES else "default: []"
        fields = "".join(f"  - {{name: {name}, type: number}}\n" for name in FEATURES)
        schema = folder / "schema.yaml"
        text = f"task: {task}\nrecord:\n{fields}features: [{', '.join(FEATURES)}]\noutputs: {{{classes}}}\n"
        schema.write_text(text)
        return tabserve.train.save(
            self.model, folder / "bundle", name=self.name, version="1", schema=schema, sample=rows()
        )


def rows() -> pd.DataFrame:
    """The rows, always the same."""
    random = np.random.default_rng(1)
    return pd.DataFrame({name: random.normal(at + 1, 2, ROWS).round(3) for at, name in enumerate(FEATURES)})


def target(task: str, *, texts: bool = False) -> Array:
    """What the models learn from the rows."""
    given = rows()
    value: Array = (given.amount - given.age / 2 + given.income**2 / 10).to_numpy()
    if task == "regression":
        return value
    codes = np.digitize(value, np.quantile(value, [0.5] if task == "binary" else [0.3, 0.7]))
    return np.array(["low", "middle", "high"])[codes] if texts else codes


def moved(name: str) -> Moved:
    """A model by its name, fitted on the rows; for XGBoost without names, because xgbserver would insist on them."""
    library, task = name.split("-", 1)
    x, y = (
        rows().to_numpy() if library == "xgboost" else rows(),
        target(task.removesuffix("-texts"), texts=task.endswith("-texts")),
    )
    return Moved(library, task, _untrained(library, task).fit(x, y))


def _untrained(library: str, task: str) -> Any:
    regresses = task == "regression"
    if library == "sklearn":
        kinds = {"regression": LinearRegression(), "binary": LogisticRegression()}
        return make_pipeline(
            StandardScaler(), kinds.get(task, RandomForestClassifier(n_estimators=5, max_depth=3, random_state=1))
        )
    if library == "xgboost":
        return (xgboost.XGBRegressor if regresses else xgboost.XGBClassifier)(n_estimators=5, max_depth=3)
    kind = lightgbm.LGBMRegressor if regresses else lightgbm.LGBMClassifier
    return kind(n_estimators=5, num_leaves=4, verbose=-1)


NAMES = [
    *(f"{library}-{task}" for library in ("sklearn", "xgboost", "lightgbm") for task in (*CLASSES, "regression")),
    "sklearn-multiclass-texts",
]
