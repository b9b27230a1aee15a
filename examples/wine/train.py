"""Train a classifier of three wines on real analyses and save it as a bundle: train.py [FOLDER]."""

from __future__ import annotations

import sys
from pathlib import Path

from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

import tabserve.train

HERE = Path(__file__).parent


def main(folder: str = "bundles/wine") -> None:
    data = load_wine(as_frame=True)
    records = data.data.rename(columns={"od280/od315_of_diluted_wines": "od280"})

    features = tabserve.train.features(HERE / "schema.yaml", records)
    model = RandomForestClassifier(100, random_state=0)
    print(f"accuracy {cross_val_score(model, features, data.target, cv=10).mean():.3f} in 10-fold cross-validation")
    model.fit(features, data.target)

    bundle = tabserve.train.save(
        model,
        folder,
        name="wine",
        version="1",
        schema=HERE / "schema.yaml",
        sample=records,
    )
    print(f"saved {bundle.path}, {bundle.digest}")


if __name__ == "__main__":
    main(*sys.argv[1:])
