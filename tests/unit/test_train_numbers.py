"""Numbers that single precision does not hold: all engines give the same answer, or none does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from xgboost import XGBClassifier

from tabserve.inference.errors import InvalidRequest
from tests.unit.served import answers, assert_serves, save

SCHEMA = "task: binary\nrecord: [{name: a, type: number}, {name: b, type: number}]\nfeatures: [a, b]\n"
SCALED = make_column_transformer((StandardScaler(), ["a"]), remainder="passthrough")
REFUSING = {
    "XGBoost": XGBClassifier(n_estimators=5),
    "XGBoost behind a preprocessor": make_pipeline(SCALED, XGBClassifier(n_estimators=5)),
    "a forest, which looks at single precision": RandomForestClassifier(5, random_state=0),
    "squares, beyond double precision": make_pipeline(PolynomialFeatures(), StandardScaler(), LogisticRegression()),
}
LARGE = [1e39, -1e300]


def table() -> tuple[pd.DataFrame, Any]:
    given = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 2)), columns=["a", "b"])
    return given, (given.a > 0).astype(int)


@pytest.mark.parametrize("kind", REFUSING)
def test_numbers_beyond_single_precision_are_refused_where_a_library_does(kind: str, tmp_path: Path) -> None:
    given, wanted = table()
    model = REFUSING[kind].fit(given, wanted)
    bundle = save(model, tmp_path, SCHEMA, given)
    rows = given.assign(b=1e30).head(3)
    assert_serves(bundle, rows, {"predict_proba": model.predict_proba(rows)})
    for large in LARGE:
        with pytest.raises(InvalidRequest, match=r"within ±3.4e\+38"):
            answers(bundle, given.assign(b=large).head(3), ["predict_proba"])


def test_a_model_of_double_precision_answers_them(tmp_path: Path) -> None:
    given, wanted = table()
    model = LogisticRegression().fit(given, wanted)
    bundle = save(model, tmp_path, SCHEMA, given)
    for large in LARGE:
        rows = given.assign(b=large).head(3)
        assert_serves(bundle, rows, {"predict_proba": model.predict_proba(rows)})
