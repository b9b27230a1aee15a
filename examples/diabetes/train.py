"""Train a regression of diabetes progression on real patients and save it as a bundle: train.py [FOLDER]."""

from __future__ import annotations

import sys
from pathlib import Path

from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import tabserve.train

HERE = Path(__file__).parent
NAMES = {"s1": "tc", "s2": "ldl", "s3": "hdl", "s4": "tch", "s5": "ltg", "s6": "glucose"}


def main(folder: str = "bundles/diabetes") -> None:
    data = load_diabetes(as_frame=True, scaled=False)
    records = data.data.rename(columns=NAMES)
    records["sex"] = records.sex.astype(int).astype(str)

    features = tabserve.train.features(HERE / "schema.yaml", records)
    numbers = [name for name in features if name != "sex"]
    columns = make_column_transformer((OneHotEncoder(drop="first"), ["sex"]), (StandardScaler(), numbers))
    model = make_pipeline(columns, Ridge(alpha=10))
    print(f"R² {cross_val_score(model, features, data.target, cv=10).mean():.2f} in 10-fold cross-validation")
    model.fit(features, data.target)

    bundle = tabserve.train.save(
        model, folder, name="diabetes", version="1", schema=HERE / "schema.yaml", sample=records
    )
    print(f"saved {bundle.path}, {bundle.digest}")


if __name__ == "__main__":
    main(*sys.argv[1:])
