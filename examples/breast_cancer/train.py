"""Train a classifier of breast masses on real measurements and save it as a bundle: train.py [FOLDER]."""

from __future__ import annotations

import sys
from pathlib import Path

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tabserve.train

HERE = Path(__file__).parent


def main(folder: str = "bundles/breast_cancer") -> None:
    data = load_breast_cancer(as_frame=True)
    worst = data.data.filter(like="worst ")
    records = worst.rename(columns=lambda name: name.removeprefix("worst ").replace(" ", "_"))
    malignant = (data.target == 0).astype(int)

    features = tabserve.train.features(HERE / "schema.yaml", records)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5))
    print(f"accuracy {cross_val_score(model, features, malignant, cv=10).mean():.3f} in 10-fold cross-validation")
    model.fit(features, malignant)

    bundle = tabserve.train.save(
        model,
        folder,
        name="breast-cancer",
        version="1",
        schema=HERE / "schema.yaml",
        sample=records,
    )
    print(f"saved {bundle.path}, {bundle.digest}")


if __name__ == "__main__":
    main(*sys.argv[1:])
