"""Columns to features, and features to the model's matrix."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabserve.bundle.manifest import FeatureSpec
from tabserve.inference.errors import InvalidRequest
from tabserve.schema.features import codes, derive, matrix
from tabserve.schema.schema import Derived, Field, Schema

TIMES = (Field("opened", "timestamp"), Field("asked", "timestamp"))


def features_of(derived: Derived, opened: float, asked: float = 0.0) -> float:
    schema = Schema("regression", TIMES, (derived,))
    columns = {"opened": np.array([opened]), "asked": np.array([asked])}
    (value,) = derive(schema, columns)[derived.name].tolist()
    return float(value)


def test_features_come_in_the_schemas_order() -> None:
    fields = (Field("a", "number"), Field("b", "category", values=("x",)), *TIMES)
    schema = Schema("regression", fields, ("b", Derived("hour", hour_of="opened"), "a"))
    columns = {
        "a": np.array([1.0]),
        "b": np.array(["x"], object),
        "opened": np.array([7200.0]),
        "asked": np.array([0.0]),
    }
    assert [(name, column.tolist()) for name, column in derive(schema, columns).items()] == [
        ("b", ["x"]),
        ("hour", [2.0]),
        ("a", [1.0]),
    ]


def test_the_fields_that_features_are_made_from() -> None:
    fields = (Field("a", "number"), Field("b", "number", use="audit"), *TIMES)
    schema = Schema("regression", fields, ("a", Derived("days", days_between=("opened", "asked"))))
    assert schema.sources == {"a": {"a"}, "days": {"opened", "asked"}}


def test_days_between_have_fractions_and_a_sign() -> None:
    days = Derived("days", days_between=("opened", "asked"))
    assert features_of(days, 0.0, 129_600.0) == 1.5
    assert features_of(days, 86_400.0, 0.0) == -1.0


@given(st.datetimes(timezones=st.just(UTC)))
def test_hour_and_weekday_are_those_of_the_calendar(moment: datetime) -> None:
    seconds = moment.replace(microsecond=0).timestamp()
    assert features_of(Derived("hour", hour_of="opened"), seconds) == moment.hour
    assert features_of(Derived("day", weekday_of="opened"), seconds) == moment.weekday()


@pytest.mark.parametrize(
    "derived",
    [
        Derived("f", days_between=("opened", "asked")),
        Derived("f", hour_of="opened"),
        Derived("f", weekday_of="opened"),
    ],
)
def test_what_is_derived_of_a_missing_time_is_missing(derived: Derived) -> None:
    assert np.isnan(features_of(derived, float("nan")))


NUMBERS = (Field("over", "number"), Field("under", "number"))


def computed(derived: Derived, over: Any, under: Any = 0.0) -> Any:
    schema = Schema("regression", NUMBERS, (derived,))
    over, under = np.broadcast_arrays(np.atleast_1d(np.asarray(over, float)), np.asarray(under, float))
    return derive(schema, {"over": over, "under": under})[derived.name]


@given(st.datetimes(timezones=st.just(UTC)))
def test_the_month_is_that_of_the_calendar(moment: datetime) -> None:
    assert features_of(Derived("month", month_of="opened"), moment.replace(microsecond=0).timestamp()) == moment.month


def test_the_month_of_a_missing_time_is_missing() -> None:
    assert np.isnan(features_of(Derived("f", month_of="opened"), float("nan")))


def test_a_ratio_is_missing_where_its_divisor_is_0_or_either_is_missing() -> None:
    found = computed(Derived("f", ratio=("over", "under")), [6, -1, 0, np.nan, 1, 0], [4, 0, 5, 1, np.nan, 0])
    np.testing.assert_array_equal(found, [1.5, np.nan, 0, np.nan, np.nan, np.nan])


def test_a_ratio_beyond_fp64_is_refused_by_record_and_feature() -> None:
    with pytest.raises(InvalidRequest, match=r"record 1, field `f`: expected a ratio within ±1.8e\+308"):
        computed(Derived("f", ratio=("over", "under")), [1.0, 1e300], [1.0, 1e-300])


def test_a_logarithm_is_natural_and_missing_where_there_is_none() -> None:
    found = computed(Derived("f", log="over"), [np.e, 1, 0, -1, np.nan])
    np.testing.assert_array_equal(found, [1, 0, np.nan, np.nan, np.nan])


@pytest.mark.parametrize("derived", [Derived("f", log="over"), Derived("f", ratio=("over", "under"))])
def test_a_row_has_the_same_bits_alone_as_among_others_wherever_it_lies(derived: Derived) -> None:
    random = np.random.default_rng(3)
    table = np.exp(random.normal(0, 20, (257, 5)))
    spread = computed(derived, table[:, 1], table[:, 3])
    assert computed(derived, table[:, 1].copy(), table[:, 3].copy()).tobytes() == spread.tobytes()
    for at in range(len(table)):
        assert computed(derived, table[at, 1], table[at, 3]).tobytes() == spread[at : at + 1].tobytes()


SPECS = (
    FeatureSpec("amount", "number", source="amount"),
    FeatureSpec("country", "category", ("FR", "DE"), "country"),
)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_matrix_has_numbers_and_codes_in_the_models_order(dtype: type[np.floating]) -> None:
    features = {
        "country": np.array(["DE", "FR", None, "XX"], object),
        "amount": np.array([1.5, np.nan, 0.1, 3.0]),
        "unused": np.zeros(4),
    }
    result = matrix(features, SPECS, dtype)
    assert result.dtype == dtype
    expected = np.array([[1.5, 1], [np.nan, 0], [0.1, np.nan], [3, np.nan]]).astype(dtype)
    np.testing.assert_array_equal(result, expected)


def test_no_rows_are_a_matrix_of_no_rows() -> None:
    empty = {"amount": np.empty(0), "country": np.empty(0, object)}
    assert matrix(empty, SPECS, np.float32).shape == (0, 2)


def test_codes_are_positions_in_the_values() -> None:
    assert codes(np.array(["b", "a"], object), ("a", "b")) == [1.0, 0.0]


def test_a_number_beyond_fp32_is_refused_by_record_and_feature() -> None:
    features = {"amount": np.array([1.0, -4e38]), "country": np.array(["DE", "DE"], object)}
    assert matrix(features, SPECS, np.float64)[1, 0] == -4e38
    with pytest.raises(InvalidRequest) as caught:
        matrix(features, SPECS, np.float32)
    assert caught.value.message == "record 1, field `amount`: expected a number within ±3.4e+38, got -4e+38"
