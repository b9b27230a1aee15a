"""Whatever the table, encoders and model: the served answers are the library's own."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, event, given, reject, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from xgboost import XGBClassifier

import tabserve.train
from tabserve.bundle import BundleError
from tests.models.tables import TRAINING, Table
from tests.models.walk import UNFIT, Fitted, decided, differs, told_of
from tests.unit.cores import Cores

ROWS = TRAINING + 20
VALUES = ("DE", "FR", "1", "true", "nan")
WORDS = ("late", "Broken", "über", "漢字", "3.14", "never", "<b>", "")
DTYPES = {
    "number": ("float64", "float32", "Float64", "object"),
    "integer": ("int64", "int8", "Int64", "object", "float64"),
    "boolean": ("bool", "boolean", "object"),
    "category": ("object", "category", "string"),
    "text": ("object", "string"),
}
NO_MISSING = ("int64", "int8", "bool")
MARKERS = {"object": (None, np.nan), "string": (pd.NA,), "Float64": (pd.NA,), "Int64": (pd.NA,), "boolean": (pd.NA,)}
ENCODERS = {
    "one-hot": lambda: OneHotEncoder(handle_unknown="ignore"),
    "ordinal": lambda: OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    "target": lambda: TargetEncoder(random_state=0),
    "imputed": lambda: make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")),
}
VECTORIZERS = {
    "counts": lambda: CountVectorizer(),
    "tf-idf": lambda: TfidfVectorizer(ngram_range=(1, 2)),
    "hashes": lambda: HashingVectorizer(n_features=16),
}
MODELS = {
    "LogisticRegression": LogisticRegression,
    "DecisionTreeClassifier": lambda: DecisionTreeClassifier(max_depth=4, random_state=0),
    "RandomForestClassifier": lambda: RandomForestClassifier(3, random_state=0),
    "HistGradientBoostingClassifier": lambda: HistGradientBoostingClassifier(max_iter=3),
    "GaussianNB": GaussianNB,
    "XGBClassifier": lambda: XGBClassifier(n_estimators=3),
    "Ridge": Ridge,
    "DecisionTreeRegressor": lambda: DecisionTreeRegressor(max_depth=4, random_state=0),
}
REGRESSORS = ("Ridge", "DecisionTreeRegressor")


@st.composite
def columns(draw: st.DrawFn) -> tuple[str, str, Any, bool]:
    """A column's type in the schema, dtype, marker of missing values, and whether there are any."""
    kind = draw(st.sampled_from(sorted(DTYPES)))
    dtype = draw(st.sampled_from(DTYPES[kind]))
    marker = draw(st.sampled_from(MARKERS.get(dtype, (np.nan,))))
    return kind, dtype, marker, dtype not in NO_MISSING and draw(st.booleans())


def made(column: tuple[str, str, Any, bool], random: np.random.Generator) -> pd.Series[Any]:
    """The column's values, a fifth of them missing if any are."""
    kind, dtype, marker, misses = column
    makers: dict[str, Callable[[], list[Any]]] = {
        "number": lambda: random.normal(0, 3, ROWS).round(3).tolist(),
        "integer": lambda: random.integers(-3, 4, ROWS).tolist(),
        "boolean": lambda: (random.random(ROWS) < 0.5).tolist(),
        "category": lambda: random.choice(VALUES, ROWS).tolist(),
        "text": lambda: [" ".join(random.choice(WORDS, random.integers(0, 6))) for _ in range(ROWS)],
    }
    values = makers[kind]()
    if misses:
        values = [marker if random.random() < 0.2 else value for value in values]
    return pd.Series(values, dtype=dtype)


def field(name: str, column: tuple[str, str, Any, bool]) -> str:
    """The column's line in the schema."""
    kind, _, _, misses = column
    values = f", values: {list(VALUES)}" if kind == "category" else ""
    return f"name: {name}, type: {kind}{values}{', required: false' if misses else ''}"


@st.composite
def cases(draw: st.DrawFn) -> tuple[Table, Any, str]:
    """A table, an unfitted pipeline for it, and what to learn."""
    chosen = draw(st.lists(columns(), min_size=1, max_size=4))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    names = [f"c{at}" for at in range(len(chosen))]
    frame = pd.DataFrame({name: made(column, random) for name, column in zip(names, chosen, strict=True)})
    table = Table(tuple(field(name, column) for name, column in zip(names, chosen, strict=True)), frame)
    last = draw(st.sampled_from(sorted(MODELS)))
    kinds = {name: column[0] for name, column in zip(names, chosen, strict=True)}
    texts = [name for name in names if kinds[name] == "text"]
    encoded = [name for name in names if kinds[name] == "category" or (name not in texts and draw(st.booleans()))]
    numbers = [name for name in names if name not in encoded + texts]
    steps: list[tuple[Any, Any]] = [(ENCODERS[draw(st.sampled_from(sorted(ENCODERS)))](), encoded)] if encoded else []
    steps += [(make_pipeline(SimpleImputer(), StandardScaler()), numbers)] if numbers else []
    steps += [(VECTORIZERS[draw(st.sampled_from(sorted(VECTORIZERS)))](), name) for name in texts]
    sparse = draw(st.sampled_from([0, 0.3]))
    event(last)
    return table, make_pipeline(make_column_transformer(*steps, sparse_threshold=sparse), MODELS[last]()), _learnt(last)


def _learnt(last: str) -> str:
    return "regression" if last in REGRESSORS else "binary"


def check(case: tuple[Table, Any, str]) -> None:
    """Check a case; a refusal is right as well, and a model that fails on its own table does not count."""
    table, model, learnt = case
    random = np.random.default_rng(0)
    wanted = random.random(TRAINING) if learnt == "regression" else random.integers(0, 2, TRAINING)
    try:
        fitted = Fitted(model.fit(table.training, wanted), None, table, learnt)
        expected = fitted.answers()
    except UNFIT:
        reject()
    with TemporaryDirectory() as folder:
        schema = Path(folder, "schema.yaml")
        schema.write_text(table.schema(learnt))
        try:
            bundle = tabserve.train.save(
                model, Path(folder, "b"), name="m", version="1", schema=schema, sample=table.training
            )
        except BundleError as error:
            event(f"refused: {error.problem[:60]}")
            return
        event("served")
        told = asyncio.run(told_of(Cores(bundle).transformer, table.records()))
        problems = [differs(name, [one[name] for one in told], values) for name, values in decided(bundle, expected)]
        assert not any(problems), problems


def run(examples: int) -> None:
    """Check this many cases, always the same ones."""
    checked = given(cases())(check)
    # A save takes a second, so the first failing case is not shrunk.
    options = settings(
        max_examples=examples,
        phases=[Phase.generate],
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        options(checked)()


def test_a_few_tables_and_models_are_served_as_their_library_answers() -> None:
    run(8)


@pytest.mark.long
def test_many_tables_and_models_are_served_as_their_library_answers() -> None:
    run(int(os.environ.get("EXAMPLES", "300")))
