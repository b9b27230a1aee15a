"""A model must give a record the same answer each time, alone and in batches, because services do both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import SparsePCA
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import tabserve.train
from tabserve.bundle import BundleError
from tests.unit.bundles import records, saved, schema, target


def centred(table: Any) -> Any:
    """Each column minus its mean over the given rows."""
    return table - np.mean(np.asarray(table), axis=0)


CENTRED = "tests.unit.test_train_repeating.centred"


def test_a_step_that_looks_at_other_rows_is_refused_by_name(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), FunctionTransformer(centred), LogisticRegression())

    with pytest.raises(BundleError, match=r"differently when it is alone.*its step `functiontransformer`.*Replace"):
        saved(model, tmp_path, trusted=[CENTRED])


def test_the_remedy_works(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression())

    assert saved(model, tmp_path).manifest.name == "m"


def test_a_step_that_fails_on_a_single_row_is_refused_by_name(tmp_path: Path) -> None:
    model = make_pipeline(SparsePCA(2, max_iter=5), LogisticRegression())

    with pytest.raises(BundleError, match=r"fails on a single record: Expected 2D array.*its step `sparsepca`"):
        saved(model, tmp_path)


def test_a_model_that_answers_by_chance_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"differently when asked again\. Give a model that predicts without"):
        saved(DummyClassifier(strategy="uniform"), tmp_path)


def test_a_preprocessor_is_held_to_the_same(tmp_path: Path) -> None:
    table = records()[["amount", "age"]]
    preprocessor = FunctionTransformer(centred).fit(table)
    model = LogisticRegression().fit(preprocessor.transform(table), target("binary"))

    with pytest.raises(BundleError, match="differently when it is alone"):
        tabserve.train.save(
            model, tmp_path / "b", name="m", version="1", schema=schema(tmp_path), sample=records(),
            preprocessor=preprocessor, trusted=[CENTRED],
        )  # fmt: skip
