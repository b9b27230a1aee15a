"""Train the models that are served, on made-up rows, and save each as a bundle and in its library's own format."""

from __future__ import annotations

import functools
import importlib.metadata
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import joblib
import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from xgboost import XGBClassifier

import tabserve.train
from benchmarks import cache
from tabserve.bundle.manifest import EngineName

TRAINING_ROWS = 20_000
POOL_ROWS = 65_536
NAME = "bench"
COLOURS = ("amber", "blue", "green", "red", "white")

_BANDS: list[dict[str, Any]] = [
    {"from": 0.8, "label": "refuse"},
    {"from": 0.4, "label": "review"},
    {"from": 0, "label": "accept"},
]
PAYMENTS = cache.ROOT / "examples" / "payments"

Probabilities = npt.NDArray[np.float64]
Reasons: TypeAlias = Literal["none", "all", "some"]
"""The bands whose decisions have reasons: none, all, or all but the lowest."""


class Trained(NamedTuple):
    """A trained model in its library's own format, the rows to ask for, and the library's predictions for them."""

    name: str
    folder: Path
    rows: pd.DataFrame
    probabilities: Probabilities

    @property
    def native(self) -> Path:
        """The folder of model.ubj or model.joblib."""
        return self.folder / "native"


def _numbers(random: np.random.Generator, count: int, width: int) -> pd.DataFrame:
    values = random.normal(size=(count, width)).astype(np.float32)
    # A few digits, as in measured values; all are exact in FP32's shortest decimal form.
    return pd.DataFrame(np.round(values, 4), columns=[f"f{i:02}" for i in range(width)])


def _mixed(random: np.random.Generator, count: int) -> pd.DataFrame:
    rows = _numbers(random, count, 20).astype(np.float64).round(4)
    for i in range(5):
        rows[f"c{i}"] = random.choice(COLOURS, count)
    return rows


def _labels(random: np.random.Generator, rows: pd.DataFrame) -> npt.NDArray[np.int64]:
    x = rows.select_dtypes("number").to_numpy(np.float64)
    score = x[:, 0] * x[:, 1] + np.sin(2 * x[:, 2]) + np.abs(x[:, 3]) - 0.8 + 0.5 * x[:, 4:10].sum(axis=1) / 2
    return np.asarray(score + random.normal(scale=0.5, size=len(x)) > 0, np.int64)


def _pipeline(estimator: Any) -> Any:
    numbers, colours = [f"f{i:02}" for i in range(20)], [f"c{i}" for i in range(5)]
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_pipeline(ColumnTransformer([("n", StandardScaler(), numbers), ("c", encoder, colours)]), estimator)


MODELS: dict[str, Callable[[], Any]] = {
    "xgboost": lambda: XGBClassifier(n_estimators=200, max_depth=6, learning_rate=0.1, n_jobs=1, random_state=0),
    "logistic": lambda: _pipeline(LogisticRegression(max_iter=1000)),
    "forest": lambda: _pipeline(RandomForestClassifier(200, min_samples_leaf=5, n_jobs=1, random_state=0)),
    "histogram": lambda: _pipeline(HistGradientBoostingClassifier(max_iter=200, random_state=0)),
    "payments": lambda: XGBClassifier(
        n_estimators=200, max_depth=4, learning_rate=0.08, enable_categorical=True, n_jobs=1, random_state=0
    ),
}


@functools.cache
def trained(name: str) -> Trained:
    """The model with this name, trained on first use."""
    versions = [importlib.metadata.version(library) for library in ("scikit-learn", "xgboost-cpu")]
    folder = cache.folder("models") / f"{name}-{cache.key([Path(__file__)], name, *versions)}"
    cache.fill(folder, lambda draft: _train(name, draft))
    rows = pd.DataFrame(joblib.load(folder / "rows"))
    return Trained(name, folder, rows, np.load(folder / "probabilities.npy"))


@functools.cache
def bundle(model: str, reasons: Reasons = "none", engine: EngineName | None = None) -> Path:
    """The bundle of the model with this name, saved again if tabserve's own code has changed."""
    of = trained(model).folder
    sources = [p for part in ("bundle", "engines", "schema") for p in (cache.ROOT / "tabserve" / part).rglob("*.py")]
    folder = cache.folder("bundles") / f"{of.name}-{reasons}-{engine or 'plan'}-{cache.key(sources)}"
    cache.fill(folder, lambda draft: _save(of, draft, _schema(model, reasons), engine))
    return folder / "bundle"


@functools.cache
def bands(model: str) -> list[tuple[float, str]]:
    """The bands in a model's schema: lower edge and label of each, the highest first."""
    found = _payments_schema()["outputs"]["decision"]["bands"] if model == "payments" else _BANDS
    return [(float(band["from"]), str(band["label"])) for band in found]


def _train(name: str, folder: Path) -> None:
    rows, labels, pool = _payments() if name == "payments" else _made_up(name)
    features = functools.partial(tabserve.train.features, PAYMENTS / "schema.yaml")
    given, asked = (features(rows), features(pool)) if name == "payments" else (rows, pool)
    model = MODELS[name]().fit(given, labels)
    np.save(folder / "probabilities.npy", np.asarray(model.predict_proba(asked), np.float64))
    for file, content in (("model", model), ("sample", rows), ("rows", pool)):
        joblib.dump(content, folder / file)
    (folder / "native").mkdir()
    if name == "xgboost":
        # Without names, because servers that make a DMatrix from a tensor have none.
        model.get_booster().feature_names = None
        model.save_model(folder / "native" / "model.ubj")
    else:
        joblib.dump(model, folder / "native" / "model.joblib")


def _made_up(name: str) -> tuple[pd.DataFrame, npt.NDArray[np.int64], pd.DataFrame]:
    """Rows to train on, their labels, and the pool of rows to ask for."""
    random = np.random.default_rng(7)
    make = _mixed if name != "xgboost" else lambda random, count: _numbers(random, count, 30)
    rows, pool = make(random, TRAINING_ROWS), make(random, POOL_ROWS)
    return rows, _labels(random, rows), pool


def _payments() -> tuple[pd.DataFrame, Any, pd.DataFrame]:
    """Training rows, labels and pool made from the example's payments, with times as text."""
    payments = runpy.run_path(str(PAYMENTS / "train.py"))["payments"]
    rows, labels = payments(TRAINING_ROWS, seed=7)
    pool, _ = payments(POOL_ROWS, seed=8)
    return rows, labels, pool.assign(**{name: pool[name].map(pd.Timestamp.isoformat) for name in ("opened", "paid")})


def _save(of: Path, folder: Path, contents: dict[str, Any], engine: EngineName | None) -> None:
    sample = joblib.load(of / "sample")
    schema = folder / "schema.yaml"
    schema.write_text(yaml.safe_dump(contents, sort_keys=False))
    options: dict[str, Any] = {"name": NAME, "version": "1", "schema": schema, "sample": sample}
    options["engine"] = engine
    tabserve.train.save(joblib.load(of / "model"), folder / "bundle", **options)


def _schema(model: str, reasons: Reasons) -> dict[str, Any]:
    schema: dict[str, Any] = _payments_schema() if model == "payments" else _schema_of(trained(model).rows)
    outputs = schema["outputs"]
    outputs.pop("reasons", None)
    if reasons != "none":
        labels = [band["label"] for band in outputs["decision"]["bands"]]
        outputs["reasons"] = {"top": 3, **({"for": labels[:-1]} if reasons == "some" else {})}
    return schema


def _payments_schema() -> dict[str, Any]:
    schema: dict[str, Any] = yaml.safe_load((PAYMENTS / "schema.yaml").read_text())
    return schema


def _schema_of(rows: pd.DataFrame) -> dict[str, Any]:
    def field(column: str) -> dict[str, Any]:
        if column.startswith("f"):
            return {"name": column, "type": "number", "min": -20, "max": 20}
        return {"name": column, "type": "category", "values": list(COLOURS)}

    decision = {"score": "bad", "bands": _BANDS}
    outputs = {"classes": ["good", "bad"], "decision": decision}
    record = [field(str(column)) for column in rows]
    return {"task": "binary", "record": record, "features": list(rows), "outputs": outputs}
