"""Fields of text: vectorizers in a pipeline or before one, which texts are accepted, and which are refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
import xgboost as xgb
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from tabserve import train
from tabserve.bundle import Bundle, BundleError
from tabserve.bundle.tensors import may_miss
from tabserve.inference.errors import InvalidRequest
from tabserve.inference.model import Context
from tabserve.inference.tensors import InferRequest, Tensor
from tests.unit.cores import Cores

SCHEMA = """
task: binary
record:
  - {name: complaint, type: text, max_length: 200}
  - {name: country, type: category, values: [DE, FR]}
  - {name: amount, type: number}
features: [complaint, country, amount]
outputs: {classes: [fine, urgent]}
"""
random = np.random.default_rng(0)
WORDS = np.array(
    ["late", "broken", "Refund", "über", "thanks", "漢字", "slow", "never", "works", "<b>", "3.14"], object
)
X = pd.DataFrame(
    {
        "complaint": [" ".join(random.choice(WORDS, random.integers(0, 12))) for _ in range(300)],
        "country": random.choice(["DE", "FR"], 300),
        "amount": random.gamma(2, 50, 300).round(2),
    }
)
Y = (X.complaint.str.contains("broken|never") | (X.amount > 150)).astype(int)


def pipeline(vectorizer: Any, *last: Any) -> Any:
    before = make_column_transformer((vectorizer, "complaint"), (OneHotEncoder(), ["country"]), remainder="passthrough")
    return make_pipeline(before, *last).fit(X, Y)


def saved(model: Any, folder: Path, schema: str = SCHEMA, **options: Any) -> Bundle:
    path = folder / "schema.yaml"
    path.write_text(schema)
    return train.save(model, folder / "bundle", name="m", version="1", schema=path, sample=X, **options)


@pytest.mark.parametrize(
    "vectorizer",
    [TfidfVectorizer(), CountVectorizer(analyzer="char", ngram_range=(1, 2)), HashingVectorizer(n_features=64)],
    ids=lambda vectorizer: type(vectorizer).__name__,
)
def test_a_vectorizer_in_a_pipeline_is_served_as_it_answers(vectorizer: Any, tmp_path: Path) -> None:
    model = pipeline(vectorizer, LogisticRegression(solver="liblinear"))
    told = Cores(saved(model, tmp_path)).predictions(X)
    expected = model.predict_proba(X)
    assert [one["label"] for one in told] == np.array(["fine", "urgent"])[model.predict(X)].tolist()
    np.testing.assert_allclose([one["score"] for one in told], expected.max(axis=1), atol=1e-6)


def test_xgboost_behind_a_vectorizer_is_served_as_it_answers(tmp_path: Path) -> None:
    model = pipeline(TfidfVectorizer(), xgb.XGBClassifier(n_estimators=10))
    bundle = saved(model, tmp_path)
    assert (bundle.manifest.model.native, bundle.manifest.preprocessor is None) == ("xgboost", False)
    told = Cores(bundle).predictions(X)
    np.testing.assert_allclose([one["score"] for one in told], model.predict_proba(X).max(axis=1), atol=1e-6)


def test_reasons_are_told_of_a_text(tmp_path: Path) -> None:
    schema = SCHEMA.replace(
        "urgent]}", "urgent], decision: {score: urgent}, reasons: {top: 3, texts: {complaint: words}}}"
    )
    model = pipeline(TfidfVectorizer(), LogisticRegression(solver="liblinear"))
    told = Cores(saved(model, tmp_path, schema)).predictions(X)
    reasons = [one["reasons"] for one, text in zip(told, X.complaint, strict=True) if "broken never" in text]
    assert reasons
    assert all("words" in reason for reason in reasons)


def test_an_absent_text_is_the_empty_one_and_a_long_or_malformed_one_is_refused(tmp_path: Path) -> None:
    schema = SCHEMA.replace("max_length: 200", "max_length: 200, required: false")
    model = pipeline(TfidfVectorizer(), LogisticRegression(solver="liblinear"))
    bundle = saved(model, tmp_path, schema)
    cores = Cores(bundle)
    assert may_miss(bundle) == frozenset()
    empty = X.head(1).assign(complaint="")
    assert cores.predictions(empty.assign(complaint=None)) == cores.predictions(empty)
    at_most = cores.predictions(empty.assign(complaint="ü" * 200))
    assert len(at_most) == 1
    with pytest.raises(
        InvalidRequest, match="record 0, field `complaint`: expected text of at most 200 characters, got 201"
    ):
        cores.predictions(empty.assign(complaint="x" * 201))
    with pytest.raises(InvalidRequest, match="field `complaint`: expected UTF-8, got other bytes"):
        _columns(cores.transformer, b"\xff")
    with pytest.raises(InvalidRequest, match=r"input `complaint`: expected UTF-8, got other bytes at \[0\]"):
        _columns(cores.predictor, b"\xff")
    with pytest.raises(InvalidRequest, match=r"input `complaint`: expected text of at most 200 characters, got 201"):
        _columns(cores.predictor, b"x" * 201)


def test_a_lone_surrogate_is_no_text(tmp_path: Path) -> None:
    cores = Cores(saved(pipeline(HashingVectorizer(n_features=8), LogisticRegression(solver="liblinear")), tmp_path))
    body = orjson.dumps({"instances": [{"complaint": "X", "country": "DE", "amount": 1}]}).replace(b'"X"', b'"\\ud800"')
    with pytest.raises(InvalidRequest):
        asyncio.run(cores.transformer.predict(body, Context()))


def test_long_texts_are_kept_in_the_reference(tmp_path: Path) -> None:
    long = X.assign(complaint=X.complaint + " broken" * 200)
    model = pipeline(CountVectorizer(), LogisticRegression(solver="liblinear"))
    path = tmp_path / "schema.yaml"
    path.write_text(SCHEMA.replace("max_length: 200", "max_length: 2000"))
    bundle = train.save(model, tmp_path / "bundle", name="m", version="1", schema=path, sample=long)
    assert bundle.reference.records["complaint"].tolist() == long.complaint.tolist()
    assert bundle.reference.histograms["complaint"].bounds.max() == long.complaint.str.len().max()


def test_a_sample_with_longer_texts_is_refused(tmp_path: Path) -> None:
    model = pipeline(HashingVectorizer(n_features=8), LogisticRegression(solver="liblinear"))
    with pytest.raises(BundleError, match=r"`complaint`: expected text of at most 3 .* say `max_length: 64`"):
        saved(model, tmp_path, SCHEMA.replace("200", "3"))


def _columns(service: Any, complaint: bytes) -> None:
    inputs = (
        Tensor("complaint", "BYTES", np.array([complaint], object)),
        Tensor("country", "BYTES", np.array([b"DE"], object)),
        Tensor("amount", "FP64", np.array([1.0])),
    )
    asyncio.run(service.infer(InferRequest(inputs), Context()))
