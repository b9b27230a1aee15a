"""Transformers before trees, done as arithmetic: the same bits, without calling scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler, OneHotEncoder, PowerTransformer, StandardScaler

from tabserve.arrays import Array, Features, dense, take
from tabserve.bundle.manifest import FeatureSpec
from tabserve.engines.contributions.sources import owners
from tabserve.engines.contributions.transformed import Transformed, written
from tabserve.engines.contributions.trees import TreeContributions
from tests.unit.test_engines_separate import (
    AGE,
    BALANCE,
    COUNT,
    MIXED,
    SEPARATE,
    classes,
    forget,
    present,
    sample,
)

WRITTEN: dict[str, tuple[Any, tuple[FeatureSpec, ...], bool]] = {
    **{name: SEPARATE[name] for name in ("scaled", "scaled twice", "one hot", "ordinal", "unknown")},
    "scaled afterwards": (
        make_pipeline(
            make_column_transformer(
                (OneHotEncoder(sparse_output=False), ["country"]), (SimpleImputer(), ["balance", "age"])
            ),
            StandardScaler(),
        ),
        MIXED,
        True,
    ),
}
BY_TRANSFORM: dict[str, tuple[Any, tuple[FeatureSpec, ...], bool]] = {
    "clipped": (MinMaxScaler(clip=True), (AGE, BALANCE), False),
    "a power": (PowerTransformer(), (AGE, BALANCE), False),
    "binned": (make_column_transformer((KBinsDiscretizer(3), ["age", "balance"])), (AGE, BALANCE), False),
    "one hot numbers": (make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["age"])), (AGE,), False),
}


def features_of(specs: tuple[FeatureSpec, ...], *, missing: bool) -> Features:
    records = sample(missing=missing)[[spec.name for spec in specs]]
    if all(spec.type == "number" for spec in specs):
        return records.to_numpy()
    given = {spec.name: records[spec.name].to_numpy() for spec in specs}
    given["country"] = np.array([None if text != text else text for text in given["country"]], object)
    return given


def fitted(name: str) -> tuple[Pipeline, tuple[FeatureSpec, ...], Features]:
    before, specs, missing = (WRITTEN | BY_TRANSFORM)[name]
    features = features_of(specs, missing=missing)
    model = make_pipeline(clone(before), RandomForestClassifier(5, random_state=0))
    return model.fit(present(specs)(features), classes(sample(missing=missing), 2)), specs, features


def found(model: Pipeline, specs: tuple[FeatureSpec, ...], features: Features) -> tuple[Transformed | None, Array]:
    def whole(given: Features) -> Array:
        return dense(model[:-1].transform(present(specs)(given)))

    return written(whole, model[:-1], owners(whole, features, specs).T, features, specs), whole(features)


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_down_has_the_same_bits(name: str) -> None:
    model, specs, features = fitted(name)
    made, expected = found(model, specs, features)
    assert made is not None
    assert made(features).tobytes() == expected.tobytes()
    alone = [made(take(features, slice(at, at + 1))) for at in range(COUNT)]
    assert np.concatenate(alone).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", BY_TRANSFORM)
def test_what_is_not_known_is_not_written_down(name: str) -> None:
    made, _ = found(*fitted(name))
    assert made is None


@pytest.mark.parametrize("name", WRITTEN)
def test_trees_ask_their_transformers_no_more(name: str) -> None:
    model, specs, features = fitted(name)
    contributions = TreeContributions(model, present(specs), features, specs)
    expected = contributions(features)
    probabilities = model.predict_proba(present(specs)(features))[:, 1]
    np.testing.assert_allclose(expected.sum(axis=1), probabilities, rtol=1e-6, atol=1e-6)
    forget(model)
    np.testing.assert_array_equal(contributions(features), expected)
