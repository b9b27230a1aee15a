"""Contributions of linear models without a call of the transformers before them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)

from tabserve.arrays import Array, Features, concatenate, rows, take
from tabserve.bundle.manifest import FeatureSpec
from tabserve.engines.contributions.linear import LinearContributions
from tabserve.engines.skops_types import parts
from tabserve.engines.tables import table

COUNT = 80
AGE, BALANCE = FeatureSpec("age", "number"), FeatureSpec("balance", "number")
COUNTRY = FeatureSpec("country", "category", ("DE", "FR", "IT"))
MIXED = (AGE, COUNTRY, BALANCE)


def sample(*, missing: bool) -> pd.DataFrame:
    random = np.random.default_rng(3)
    found = pd.DataFrame(
        {
            "age": random.integers(18, 90, COUNT).astype(float),
            "country": random.choice(["DE", "FR", "IT"], COUNT).astype(object),
            "balance": random.normal(1e6, 30, COUNT),
        }
    )
    if missing:
        found.loc[::5, "balance"] = np.nan
        found.loc[::7, "country"] = np.nan
    return found


def classes(records: pd.DataFrame, count: int) -> Array:
    value = records.age / 30 + (records.country == "IT") + records.balance.fillna(1e6 + 40) / 40
    return np.asarray(pd.qcut(value, count, labels=False))


def fitted(before: Any, specs: tuple[FeatureSpec, ...], *, missing: bool, count: int = 2) -> tuple[Pipeline, Features]:
    records = sample(missing=missing)[[spec.name for spec in specs]]
    model = make_pipeline(clone(before), RidgeClassifier()).fit(records, classes(sample(missing=missing), count))
    if all(spec.type == "number" for spec in specs):
        return model, records.to_numpy()
    given = {spec.name: records[spec.name].to_numpy() for spec in specs}
    given["country"] = np.array([None if text != text else text for text in given["country"]], object)
    return model, given


def imputed() -> Any:
    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(sparse_output=False))
    return make_column_transformer((numbers, ["balance"]), (texts, ["country"]), ("passthrough", ["age"]))


def forget(model: Pipeline) -> None:
    """Remove everything from the transformers that could be called."""
    for part in [part for _, part in parts(model[:-1]) if hasattr(part, "get_params")]:
        vars(part).clear()


SEPARATE: dict[str, tuple[Any, tuple[FeatureSpec, ...], bool]] = {
    "scaled": (StandardScaler(), (AGE, BALANCE), False),
    "scaled twice": (make_pipeline(MinMaxScaler(), RobustScaler(), MaxAbsScaler()), (AGE, BALANCE), False),
    "one hot": (make_column_transformer((OneHotEncoder(), ["country"]), remainder=StandardScaler()), MIXED, False),
    "ordinal": (make_column_transformer((OrdinalEncoder(), ["country"]), remainder="passthrough"), MIXED, False),
    "unknown": (
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["country"]), ("drop", ["age"])),
        MIXED,
        True,
    ),
    "imputed": (imputed(), MIXED, True),
}
BY_TRANSFORM: dict[str, tuple[Any, tuple[FeatureSpec, ...], bool]] = {
    "numbers one hot": (make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["age"])), (AGE,), False),
    "clipped": (MinMaxScaler(clip=True), (AGE, BALANCE), False),
    "binned": (KBinsDiscretizer(4, encode="ordinal"), (AGE, BALANCE), False),
    "a marker": (make_pipeline(SimpleImputer(missing_values=30.0), StandardScaler()), (AGE,), False),
}


def present(specs: tuple[FeatureSpec, ...]) -> Any:
    return table(specs, "object")


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", [*SEPARATE, *BY_TRANSFORM])
def test_what_a_feature_changes_is_what_its_contribution_changes(name: str, count: int) -> None:
    before, specs, missing = (SEPARATE | BY_TRANSFORM)[name]
    model, features = fitted(before, specs, missing=missing, count=count)
    contributions = LinearContributions(model, present(specs), features, specs)
    whole, margin = contributions(features), model.decision_function(present(specs)(features))
    np.testing.assert_allclose(whole.sum(axis=-1), margin, rtol=1e-9, atol=1e-9)
    other = np.random.default_rng(0).permutation(rows(features))
    for at, spec in enumerate(specs):
        changed = features.copy()
        if isinstance(changed, dict):
            changed[spec.name] = changed[spec.name][other]
        else:
            changed[:, at] = changed[other, at]
        moved = model.decision_function(present(specs)(changed)) - margin
        np.testing.assert_allclose(contributions(changed)[..., at] - whole[..., at], moved, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", SEPARATE)
def test_the_transformers_are_asked_no_more(name: str) -> None:
    before, specs, missing = SEPARATE[name]
    model, features = fitted(before, specs, missing=missing)
    contributions = LinearContributions(model, present(specs), features, specs)
    expected = contributions(features)
    forget(model)
    np.testing.assert_array_equal(contributions(features), expected)


@pytest.mark.parametrize("name", BY_TRANSFORM)
def test_transformers_that_make_no_line_of_a_number_are_asked(name: str) -> None:
    before, specs, missing = BY_TRANSFORM[name]
    model, features = fitted(before, specs, missing=missing)
    contributions = LinearContributions(model, present(specs), features, specs)
    forget(model)
    with pytest.raises(AttributeError):
        contributions(features)


@pytest.mark.parametrize("name", SEPARATE)
def test_a_row_has_the_same_bytes_alone_and_among_others(name: str) -> None:
    before, specs, missing = SEPARATE[name]
    model, features = fitted(before, specs, missing=missing, count=3)
    contributions = LinearContributions(model, present(specs), features, specs)
    alone = [contributions(take(features, slice(at, at + 1))) for at in range(COUNT)]
    assert np.concatenate(alone).tobytes() == contributions(features).tobytes()
    twice = contributions(concatenate([features, features]))
    assert twice[COUNT:].tobytes() == twice[:COUNT].tobytes()
