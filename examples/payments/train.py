"""Train a fraud classifier on payments made up by a seeded generator and save it as a bundle: train.py [FOLDER]."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from xgboost import XGBClassifier

import tabserve.train

HERE = Path(__file__).parent


def payments(count: int, seed: int) -> tuple[pd.DataFrame, pd.Series]:
    """Payments, and whether each is fraud: likelier at night, for young accounts, on the web and for large amounts."""
    random = np.random.default_rng(seed)
    paid = pd.Timestamp("2026-01-01") + pd.to_timedelta(random.integers(0, 300 * 86400, count), unit="s")
    days = random.exponential(400, count)
    records = pd.DataFrame(
        {
            "amount": random.gamma(1.2, 80, count).round(2),
            "country": random.choice(
                ["DE", "ES", "FR", "IT", "NL", "other"], count, p=[0.4, 0.15, 0.2, 0.1, 0.1, 0.05]
            ),
            "channel": random.choice(["app", "shop", "web"], count),
            "opened": paid - pd.to_timedelta((days * 86400).astype(int), unit="s"),
            "paid": paid,
            "purchases": random.poisson(np.minimum(days, 90) / 10),
            "income": np.where(random.random(count) < 0.6, np.nan, random.gamma(6, 8000, count).round(-2)),
        }
    )
    risk = -3.8 + records.amount / 120 - np.minimum(days, 365) / 150 + 1.5 * (paid.hour < 5)
    risk += 1.2 * (records.channel == "web") + 1.5 * (records.country == "other") - 0.1 * records.purchases
    risk -= 0.5 * np.log(records.income.fillna(48_000) / 48_000)
    return records, pd.Series((random.random(count) < 1 / (1 + np.exp(-risk))).astype(int))


def main(folder: str = "bundles/payments") -> None:
    records, fraud = payments(20_000, seed=7)
    features = tabserve.train.features(HERE / "schema.yaml", records)
    train, test = train_test_split(np.arange(len(fraud)), test_size=0.25, random_state=0, stratify=fraud)
    model = XGBClassifier(n_estimators=200, max_depth=4, learning_rate=0.08, enable_categorical=True, random_state=0)
    model.fit(features.iloc[train], fraud[train])
    score = roc_auc_score(fraud[test], model.predict_proba(features.iloc[test])[:, 1])
    print(f"area under the ROC curve {score:.3f} on payments not trained on; {fraud.mean():.1%} are fraud")
    bundle = tabserve.train.save(
        model, folder, name="payments", version="1", schema=HERE / "schema.yaml", sample=records.iloc[train]
    )
    print(f"saved {bundle.path}, {bundle.digest}")


if __name__ == "__main__":
    main(*sys.argv[1:])
