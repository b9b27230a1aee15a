"""Bundles of the model of breast masses for releases that differ from each other in a known way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.tree import DecisionTreeClassifier

import tabserve.train
from tests.cluster.testbed.places import PROJECT

SCHEMA = (PROJECT / "examples" / "breast_cancer" / "schema.yaml").read_text().partition("  reasons:")[0]
MALIGNANT, BENIGN = "refer today", "routine follow-up"
"""What the schema's bands make of the probabilities 1 and 0."""
FLIPPED = range(0, 569, 20)
"""The rows, 5 % of all, that `flipped` decides the other way."""


def records() -> pd.DataFrame:
    """All records, as in the example."""
    worst: pd.DataFrame = load_breast_cancer(as_frame=True).data.filter(like="worst ")
    return worst.rename(columns=lambda name: name.removeprefix("worst ").replace(" ", "_"))


def malignant() -> np.ndarray[Any, Any]:
    """Which of them are malignant."""
    return np.asarray(load_breast_cancer().target == 0)


def as_clients_send() -> list[dict[str, Any]]:
    """The records as JSON has them."""
    return [{str(name): float(value) for name, value in row.items()} for row in records().to_dict("records")]


def exact(folder: Path) -> Path:
    """A tree that knows every record by heart."""
    return _saved(folder, "1", malignant())


def flipped(folder: Path) -> Path:
    """The same, but with the labels of FLIPPED turned round."""
    labels = malignant()
    labels[list(FLIPPED)] ^= True
    return _saved(folder, "2", labels)


def narrow(folder: Path) -> tuple[Path, set[int]]:
    """The same as `exact`, with a schema that refuses the 3 % of records with the largest areas; gives these, too."""
    areas = records()["area"]
    most = float(np.quantile(areas, 0.97))
    bundle = _saved(folder, "2", malignant(), SCHEMA.replace("max: 20000", f"max: {most}"), areas <= most)
    return bundle, {*np.flatnonzero(areas > most).tolist()}


def _saved(
    folder: Path, version: str, labels: np.ndarray[Any, Any], schema: str = SCHEMA, taken: Any = slice(None)
) -> Path:
    folder.mkdir()
    (folder / "schema.yaml").write_text(schema)
    sample = records()[taken]
    model = DecisionTreeClassifier(random_state=0)
    model.fit(tabserve.train.features(folder / "schema.yaml", sample), labels[taken].astype(int))
    bundle = tabserve.train.save(
        model, folder / "bundle", name="breast-cancer", version=version, schema=folder / "schema.yaml", sample=sample
    )
    return bundle.path
