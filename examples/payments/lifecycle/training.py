"""Train on payments whose outcome is known, and save a bundle with what the monitor compares with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from xgboost import XGBClassifier

import tabserve.train
from tabserve.bundle import Bundle

SCHEMA = Path(__file__).parent / "schema.yaml"


def train(payments: pd.DataFrame, folder: Path, version: str) -> Bundle:
    """Save a model of two thirds of the payments, judged on the others. payments: with their `outcome`."""
    held_out = np.arange(len(payments)) % 3 == 2
    sample, test = payments[~held_out], payments[held_out]
    model = XGBClassifier(n_estimators=60, max_depth=3, enable_categorical=True, random_state=0)
    model.fit(tabserve.train.features(SCHEMA, sample), (sample.outcome == "fraud").astype(int))
    return tabserve.train.save(
        model,
        folder,
        name="payments",
        version=version,
        schema=SCHEMA,
        sample=sample,
        held_out=test,
        labels=test.outcome,
    )
