"""Categories that are not ASCII: XGBoost before 3.3 stores positions of characters in place of bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from xgboost import XGBClassifier

from tabserve.bundle import BundleError
from tests.unit.served import assert_serves, save

CUTS = tuple(map(int, xgboost.__version__.split(".")[:2])) < (3, 3)


def trained(values: list[str]) -> tuple[Any, pd.DataFrame, pd.DataFrame, str]:
    """A model, its records, the table made from them, and their schema."""
    random = np.random.default_rng(0)
    given = pd.DataFrame({"x": random.normal(size=200), "c": random.choice(values, 200)})
    wanted = ((given.c == values[1]) ^ (given.x > 1)).astype(int)
    table = given.assign(c=pd.Categorical(given.c, values))
    model = XGBClassifier(n_estimators=5, enable_categorical=True).fit(table, wanted)
    listed = ", ".join(sorted(values, reverse=True))
    fields = f"record: [{{name: x, type: number}}, {{name: c, type: category, values: [{listed}]}}]"
    return model, given, table, f"task: binary\n{fields}\nfeatures: [x, c]\n"


VALUES = [["Köln", "Zürich", "Bonn"], ["日本", "中国", "z"], ["é", "è", "z"], ["a", "éa", "ab"]]


@pytest.mark.parametrize("values", [["b", "c", "a"], *([] if CUTS else VALUES)])
def test_categories_that_are_stored_whole_are_served(values: list[str], tmp_path: Path) -> None:
    model, given, table, schema = trained(values)
    bundle = save(model, tmp_path, schema, given)
    assert bundle.manifest.model.features[1].values == tuple(values)
    assert_serves(bundle, given, {"predict_proba": model.predict_proba(table)})


@pytest.mark.skipif(not CUTS, reason="stores them whole")
@pytest.mark.parametrize("values", VALUES)
def test_categories_that_are_stored_damaged_are_refused(values: list[str], tmp_path: Path) -> None:
    model, given, _, schema = trained(values)
    with pytest.raises(
        BundleError,
        match=r"`c` are not ASCII, and XGBoost before 3.3 damaged them.* Train it with XGBoost 3.3 or later",
    ):
        save(model, tmp_path, schema, given)
