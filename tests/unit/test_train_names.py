"""Features may have any name that a schema takes, in every library's model and in its ONNX form."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from xgboost import XGBClassifier

from tabserve.bundle import BundleError
from tests.unit.served import assert_serves, save

ROWS = 200
NAMES = [
    "hours per week", "hours-per-week", "Total (EUR)", "a<b", "x[1]", "1st", "f:1", "a/b", "f0", "predict", "features",
    "日本", "😀", *(unicodedata.normalize(form, "größe") for form in ("NFC", "NFD")),
]  # fmt: skip


def named(name: str) -> tuple[pd.DataFrame, Any, str]:
    """Records with a field of this name and one with nearly the same, the target, and the schema."""
    random = np.random.default_rng(0)
    names = [name, f"{name}_", "c"]
    given = pd.DataFrame(random.normal(size=(ROWS, 2)), columns=names[:2]).assign(c=random.choice(["a", "b"], ROWS))
    quoted = [json.dumps(one, ensure_ascii=False) for one in names]
    fields = ", ".join(f"{{name: {one}, type: number}}" for one in quoted[:2])
    schema = f"task: binary\nrecord: [{fields}, {{name: c, type: category, values: [a, b]}}]\nfeatures: {quoted}\n"
    wanted = ((given.c == "a") ^ (given[name] > given[f"{name}_"])).astype(int)
    return given, wanted, schema.replace("'", "")


@pytest.mark.parametrize("name", NAMES)
def test_a_pipeline_keeps_the_names_of_its_columns(name: str, tmp_path: Path) -> None:
    """alteryx/evalml#589, pycaret#272: names of columns that are not identifiers."""
    given, wanted, schema = named(name)
    encoder = ColumnTransformer([("c", OneHotEncoder(), ["c"])], remainder="passthrough")
    for at, last in enumerate((LogisticRegression(), XGBClassifier(n_estimators=5))):
        model = make_pipeline(encoder, last).fit(given, wanted)
        bundle = save(model, tmp_path / str(at), schema, given)
        assert_serves(bundle, given, {"predict_proba": model.predict_proba(given)})


@pytest.mark.parametrize("name", NAMES)
def test_xgboost_keeps_the_names_of_its_features(name: str, tmp_path: Path) -> None:
    given, wanted, schema = named(name)
    table = given.assign(c=(given.c == "b").astype(float))
    # XGBoost itself refuses brackets and `<` in names: then it is trained on an array.
    model = XGBClassifier(n_estimators=5).fit(table.to_numpy() if {*"[]<"} & {*name} else table, wanted)
    bundle = save(model, tmp_path, schema, given)
    assert bundle.manifest.model.onnx, bundle.manifest.model.notes
    expected = model.predict_proba(table.to_numpy() if {*"[]<"} & {*name} else table)
    assert_serves(bundle, given, {"predict_proba": expected})


def test_half_a_character_is_no_name(tmp_path: Path) -> None:
    given, wanted, schema = named("a")
    model = XGBClassifier(n_estimators=2).fit(given[["a", "a_"]], wanted)
    with pytest.raises(BundleError, match=r"surrogates not allowed\. Correct the schema"):
        save(model, tmp_path, schema.replace('"a"', '"\\ud83d"'), given)


def test_a_text_column_of_the_name_that_a_matrix_has_is_refused(tmp_path: Path) -> None:
    given, wanted, schema = named("input-0")
    encoder = ColumnTransformer([("c", OneHotEncoder(), ["c"])], remainder="passthrough")
    model = make_pipeline(encoder, LogisticRegression()).fit(given, wanted)
    with pytest.raises(
        BundleError, match=r"feature `input-0`: this is what requests call a matrix\. Give the field another name"
    ):
        save(model, tmp_path, schema, given)
