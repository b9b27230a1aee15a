"""Records and V2 columns: what is accepted, which columns result, what an error says."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabserve.arrays import Array
from tabserve.inference.errors import InvalidRequest
from tabserve.inference.tensors import Tensor
from tabserve.schema.columns import Columns, rows
from tabserve.schema.reading import parse
from tabserve.schema.records import Records
from tabserve.schema.schema import Field, Schema

TEXT = """\
task: regression
record:
  - {name: amount, type: number, min: 0, max: 1000, unit: EUR}
  - {name: country, type: category, values: [DE, FR, IT]}
  - {name: channel, type: category, values: [web, other], unknown: other}
  - {name: visits, type: integer, min: 1}
  - {name: member, type: boolean}
  - {name: opened, type: timestamp}
  - {name: asked, type: timestamp, required: false, default: now}
  - {name: income, type: number, required: false}
  - {name: rate, type: number, required: false, default: 0.5}
  - {name: region, type: category, values: [n, s], required: false}
  - {name: tier, type: category, values: [a, b], required: false, default: b}
features: [amount]
"""
NOW = 1_750_000_000.0
RECORD: dict[str, Any] = {
    "amount": 12.5,
    "country": "DE",
    "channel": "web",
    "visits": 3,
    "member": True,
    "opened": "2024-01-01T00:00:00Z",
}
NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC).timestamp()


@pytest.fixture(scope="module")
def records() -> Records:
    return Records(parse(TEXT, "schema.yaml"), clock=lambda: NOW)


def body(*instances: Any) -> bytes:
    return json.dumps({"instances": list(instances)}).encode()


def error_of(records: Records, data: bytes) -> str:
    with pytest.raises(InvalidRequest) as caught:
        records.decode(data)
    caught.value.message.encode()
    return caught.value.message


def assert_same(columns: Columns, expected: dict[str, list[Any]]) -> None:
    assert set(columns) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(columns[name], np.array(values, columns[name].dtype), err_msg=name)


DEFAULTS: dict[str, list[Any]] = {
    "asked": [NOW, NOW],
    "income": [np.nan, np.nan],
    "rate": [0.5, 0.5],
    "region": [None, None],
    "tier": ["b", "b"],
}
EXPECTED: dict[str, list[Any]] = {
    "amount": [12.5, 0.0],
    "country": ["DE", "IT"],
    "channel": ["web", "other"],
    "visits": [3.0, 1.0],
    "member": [1.0, 0.0],
    "opened": [NEW_YEAR, 1.7e9],
    **DEFAULTS,
}
SECOND = {"amount": 0, "country": "IT", "channel": "telex", "visits": 1.0, "member": False, "opened": 1.7e9}


def test_records_become_columns(records: Records) -> None:
    columns = records.decode(body(RECORD, SECOND))
    assert_same(columns, EXPECTED)
    assert columns["amount"].dtype == np.float64
    assert columns["country"].dtype == object


def test_a_large_body_is_read_in_pieces_and_its_records_keep_their_places(records: Records) -> None:
    count = 3000
    columns = records.decode(body(*[RECORD, SECOND] * count))

    assert_same(columns, {name: values * count for name, values in EXPECTED.items()})
    assert error_of(records, body(*[RECORD] * count, RECORD | {"visits": "x"})).startswith(f"record {count}, field")
    assert error_of(records, body(*[RECORD] * count, RECORD | {"amount": -1})).startswith(f"record {count}, field")


def test_null_is_the_same_as_absent_in_optional_fields(records: Records) -> None:
    nulls = dict.fromkeys(DEFAULTS)
    assert_same(records.decode(body(RECORD | nulls, SECOND | nulls)), EXPECTED)


def test_optional_fields_are_read_where_they_are_given(records: Records) -> None:
    given = {"asked": "2024-01-01", "income": 7, "rate": 0, "region": "s", "tier": "a"}
    columns = records.decode(body(RECORD | given))
    assert [columns[name][0] for name in given] == [NEW_YEAR, 7.0, 0.0, "s", "a"]


def test_decoded_objects_are_converted_alike(records: Records) -> None:
    assert_same(records.convert([RECORD, SECOND]), EXPECTED)


def test_no_records_are_empty_columns(records: Records) -> None:
    assert rows(records.decode(b'{"instances": []}')) == 0


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("2024-01-01T00:00:00Z", NEW_YEAR),
        ("2024-01-01T00:00:00", NEW_YEAR),
        ("2024-01-01", NEW_YEAR),
        ("2024-01-01T01:00:00+01:00", NEW_YEAR),
        ("2023-12-31T19:00:00.500000-05:00", NEW_YEAR + 0.5),
        (NEW_YEAR, NEW_YEAR),
        (-1, -1.0),
    ],
)
def test_timestamps_are_seconds_in_utc(records: Records, time: str | float, seconds: float) -> None:
    assert records.decode(body(RECORD | {"opened": time}))["opened"][0] == seconds


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"country": "XX"}, 'field `country`: expected one of DE, FR, IT, got "XX"'),
        ({"country": "X" * 5000}, f'field `country`: expected one of DE, FR, IT, got "{"X" * 39}…"'),
        ({"country": 'a"\n'}, 'field `country`: expected one of DE, FR, IT, got "a\\"\\n"'),
        ({"country": None}, "field `country`: expected one of DE, FR, IT, got null"),
        ({"country": 3}, "field `country`: expected one of DE, FR, IT, got a number"),
        ({"region": "x"}, 'field `region`: expected one of n, s, got "x"'),
        ({"amount": -1}, "field `amount`: expected a number from 0 to 1000 EUR, got -1"),
        ({"amount": 1000.5}, "field `amount`: expected a number from 0 to 1000 EUR, got 1000.5"),
        ({"amount": "12"}, "field `amount`: expected a number from 0 to 1000 EUR, got a string"),
        ({"amount": True}, "field `amount`: expected a number from 0 to 1000 EUR, got a boolean"),
        ({"amount": [1]}, "field `amount`: expected a number from 0 to 1000 EUR, got an array"),
        ({"amount": {"a": 1}}, "field `amount`: expected a number from 0 to 1000 EUR, got an object"),
        ({"amount": None}, "field `amount`: expected a number from 0 to 1000 EUR, got null"),
        ({"visits": 1.5}, "field `visits`: expected a whole number of at least 1, got 1.5"),
        ({"visits": 2**53}, "field `visits`: expected a whole number of at least 1, got 9007199254740992"),
        ({"visits": 2**53 + 1}, "field `visits`: expected a whole number of at least 1, got 9007199254740992"),
        ({"member": 1}, "field `member`: expected true or false, got a number"),
        ({"opened": "yesterday"}, 'field `opened`: expected an ISO 8601 time or seconds since 1970, got "yesterday"'),
        (
            {"opened": "0001-01-01T00:00:00+14:00"},
            'field `opened`: expected an ISO 8601 time or seconds since 1970, got "0001-01-01T00:00:00+14:00"',
        ),
        ({"opened": 1.7e12}, "field `opened`: expected an ISO 8601 time or seconds since 1970, got 1700000000000"),
        ({"opened": False}, "field `opened`: expected an ISO 8601 time or seconds since 1970, got a boolean"),
    ],
)
def test_an_error_names_record_field_expectation_and_value(
    records: Records, change: dict[str, Any], expected: str
) -> None:
    assert error_of(records, body(RECORD, RECORD, RECORD, RECORD | change)) == f"record 3, {expected}"


def test_a_missing_field_is_named(records: Records) -> None:
    left = {name: value for name, value in RECORD.items() if name != "amount"}
    expected = "record 1, field `amount`: expected a number from 0 to 1000 EUR, but it is missing"
    assert error_of(records, body(RECORD, left)) == expected


def test_an_unknown_field_names_the_nearest(records: Records) -> None:
    message = error_of(records, body(RECORD, RECORD | {"contry": "DE"}))
    assert message == "record 1: unknown field `contry` (did you mean `country`?)"


def test_long_lists_of_values_are_shortened() -> None:
    field = Field("code", "category", values=tuple(str(i) for i in range(200)))
    message = error_of(Records(Schema("regression", (field,), ("code",))), body({"code": "x"}))
    assert message == 'record 0, field `code`: expected one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … (190 more), got "x"'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"instances": null}',
        b'{"instances": 3}',
        b'{"instances": [3]}',
        b'{"instances": [[1, 2]]}',
        b'{"instances": [{"amount": NaN}]}',
        b'{"instances": [{"amount": Infinity}]}',
        b'{"instances": [{"amount": 1e400}]}',
        b'{"instances": [{"amount": ' + b"9" * 5000 + b"}]}",
        b'{"instances": [{"country": "\\ud800"}]}',
        b'{"instances": [{"country": "\xc3"}]}',
        b'{"instances": [{"\\ud800": 1}]}',
        b'{"instances": [{"amount": 1}',
        b'{"instances": ' + b"[" * 100_000,
        b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"instances": [{"amount": ' + b'{"a":' * 100_000,
    ],
    ids=lambda data: data[:40].decode(errors="replace"),
)
def test_what_is_no_body_of_records_is_an_invalid_request(records: Records, data: bytes) -> None:
    assert error_of(records, data)


@pytest.mark.parametrize(
    "instances",
    [None, 3, "x", [3], [RECORD | {"amount": float("nan")}], [RECORD | {"amount": float("inf")}],
     [RECORD | {"country": "\ud800"}], [RECORD | {"\ud800": 1}], [RECORD | {"amount": 10**400}]],
    ids=str,
)  # fmt: skip
def test_objects_that_are_no_records_are_invalid_requests(records: Records, instances: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        records.convert(instances)
    caught.value.message.encode()


@given(st.binary())
def test_any_bytes_are_columns_or_an_invalid_request(data: bytes) -> None:
    reader = Records(parse(TEXT, "schema.yaml"))
    for attempt in (data, b'{"instances": [' + data + b"]}", b'{"instances": [{"amount": ' + data + b"}]}"):
        try:
            assert rows(reader.decode(attempt)) >= 0
        except InvalidRequest as error:
            error.message.encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys([*RECORD, *DEFAULTS], JSON)), max_size=3))
def test_any_json_records_are_columns_or_an_invalid_request(instances: list[dict[str, Any]]) -> None:
    reader = Records(parse(TEXT, "schema.yaml"))
    try:
        assert rows(reader.decode(body(*instances))) == len(instances)
    except InvalidRequest as error:
        error.message.encode()


VALID = st.fixed_dictionaries(
    {
        "amount": st.floats(0, 1000),
        "country": st.sampled_from(["DE", "FR", "IT"]),
        "channel": st.text(),
        "visits": st.integers(1, 2**53 - 1),
        "member": st.booleans(),
        "opened": st.datetimes().map(datetime.isoformat),
    },
    optional={"income": st.none() | st.floats(allow_nan=False, allow_infinity=False)},
)


@given(st.lists(VALID, min_size=1, max_size=5))
def test_valid_records_come_out_exactly(instances: list[dict[str, Any]]) -> None:
    columns = Records(parse(TEXT, "schema.yaml")).convert(instances)
    assert columns["amount"].tolist() == [record["amount"] for record in instances]
    assert columns["visits"].tolist() == [record["visits"] for record in instances]
    assert columns["country"].tolist() == [record["country"] for record in instances]
    income = [record.get("income") for record in instances]
    np.testing.assert_array_equal(columns["income"], np.array(income, np.float64))


def strings(*values: bytes | str) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def tensors(**changes: Tensor | None) -> list[Tensor]:
    given: dict[str, Tensor | None] = {
        "amount": Tensor("amount", "FP32", np.array([12.5, 0], np.float32)),
        "country": Tensor("country", "BYTES", strings(b"DE", "IT")),
        "channel": Tensor("channel", "BYTES", strings(b"web", b"telex").reshape(2, 1)),
        "visits": Tensor("visits", "INT64", np.array([[3], [1]])),
        "member": Tensor("member", "BOOL", np.array([True, False])),
        "opened": Tensor("opened", "BYTES", strings(b"2024-01-01T00:00:00Z", b"2023-11-14T22:13:20Z")),
    }
    return [tensor for tensor in (given | changes).values() if tensor is not None]


def test_columns_of_tensors_become_the_same_columns(records: Records) -> None:
    assert_same(records.from_tensors(tensors()), EXPECTED)


def test_a_timestamp_may_be_a_number(records: Records) -> None:
    opened = Tensor("opened", "INT64", np.array([1_704_067_200, 1_700_000_000]))
    assert_same(records.from_tensors(tensors(opened=opened)), EXPECTED)


def test_missing_values_in_optional_columns_take_defaults(records: Records) -> None:
    nan = np.array([np.nan, np.nan])
    given = {name: Tensor(name, "FP64", nan) for name in ("income", "rate")}
    given |= {name: Tensor(name, "BYTES", strings(b"", b"")) for name in ("asked", "region", "tier")}
    assert_same(records.from_tensors(tensors(**given)), EXPECTED)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"amount": None}, "input `amount`: expected a number from 0 to 1000 EUR, but it is missing"),
        ({"x": Tensor("amout", "FP64", np.zeros(2))}, "unknown input `amout` (did you mean `amount`?)"),
        ({"x": Tensor("amount", "FP64", np.zeros(2))}, "input `amount`: given twice"),
        ({"amount": Tensor("amount", "FP64", np.zeros(3))}, "input `country`: expected BYTES [3], got BYTES [2]"),
        (
            {"visits": Tensor("visits", "INT64", np.ones((2, 2)))},
            "input `visits`: expected INT64 [2], got INT64 [2, 2]",
        ),
        ({"amount": Tensor("amount", "FP64", np.array(1.0))}, "input `amount`: expected FP64 [0], got FP64 []"),
        ({"amount": Tensor("amount", "BOOL", np.ones(2, bool))}, "input `amount`: expected FP64 [2], got BOOL [2]"),
        ({"member": Tensor("member", "INT64", np.ones(2))}, "input `member`: expected BOOL [2], got INT64 [2]"),
        ({"country": Tensor("country", "INT64", np.ones(2))}, "input `country`: expected BYTES [2], got INT64 [2]"),
        (
            {"amount": Tensor("amount", "FP64", np.array([0, np.nan]))},
            "record 1, field `amount`: expected a number from 0 to 1000 EUR, got nan",
        ),
        (
            {"income": Tensor("income", "FP32", np.array([0, np.inf], np.float32))},
            "record 1, field `income`: expected a number, got inf",
        ),
        (
            {"country": Tensor("country", "BYTES", strings(b"DE", b"\xff"))},
            "record 1, field `country`: expected UTF-8, got other bytes",
        ),
        (
            {"country": Tensor("country", "BYTES", strings(b"DE", b""))},
            'record 1, field `country`: expected one of DE, FR, IT, got ""',
        ),
        (
            {"opened": Tensor("opened", "BYTES", strings(b"2024-01-01", b"soon"))},
            'record 1, field `opened`: expected an ISO 8601 time or seconds since 1970, got "soon"',
        ),
        (
            {"visits": Tensor("visits", "UINT64", np.array([1, 2**64 - 1], np.uint64))},
            "record 1, field `visits`: expected a whole number of at least 1, got 18446744073709551615",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(records: Records, changes: dict[str, Tensor], expected: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        records.from_tensors(tensors(**changes))
    assert caught.value.message == expected


def test_no_tensors_are_an_invalid_request(records: Records) -> None:
    with pytest.raises(InvalidRequest, match="input `amount`"):
        records.from_tensors([])


def test_metadata_names_a_tensor_for_each_field(records: Records) -> None:
    specs = {spec.name: (spec.datatype, spec.shape) for spec in records.tensor_specs}
    assert list(specs) == list(parse(TEXT, "schema.yaml").fields)
    assert specs["amount"] == ("FP64", (-1,))
    assert specs["visits"] == ("INT64", (-1,))
    assert specs["member"] == ("BOOL", (-1,))
    assert specs["country"] == specs["opened"] == ("BYTES", (-1,))


IDENTIFIED = "id: payment\n" + TEXT


@pytest.mark.parametrize(("sent", "carried"), [("p-1", "p-1"), (17, "17"), ("", None), (None, None)])
def test_an_id_is_carried_through(sent: Any, carried: str | None) -> None:
    records = Records(parse(IDENTIFIED, "schema.yaml"), clock=lambda: NOW)
    columns = records.decode(body({**RECORD, "payment": sent}, RECORD))
    assert columns["payment"].tolist() == [carried, None]


@pytest.mark.parametrize(
    ("array", "datatype"), [(np.array([b"p-1", b"17"], object), "BYTES"), (np.array([[1], [17]]), "INT64")]
)
def test_an_id_comes_as_a_tensor_too(array: Array, datatype: str) -> None:
    records = Records(parse("id: payment\n" + SMALL, "schema.yaml"))
    tensors = [Tensor("payment", datatype, array), Tensor("amount", "FP64", np.array([1.0, 2.0]))]
    assert records.from_tensors(tensors)["payment"].tolist()[1] == "17"
    assert [spec.name for spec in records.tensor_specs] == ["payment", "amount"]


SMALL = "task: regression\nrecord: [{name: amount, type: number}]\nfeatures: [amount]\n"


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (1.5, "record 0, field `payment`: expected a string or a whole number, got a number"),
        (["p"], "record 0, field `payment`: expected a string or a whole number, got an array"),
        ("p" * 257, "record 0, field `payment`: expected at most 256 characters, got 257"),
    ],
)
def test_an_id_of_another_kind_is_refused(sent: Any, message: str) -> None:
    assert error_of(Records(parse("id: payment\n" + SMALL, "x")), body({"amount": 1, "payment": sent})) == message


NUMBERED = """\
task: regression
record:
  - {name: region, type: category, values: [1, 2, 3]}
  - {name: tier, type: category, values: [1, other], unknown: other, required: false}
  - {name: born, type: date}
  - {name: asked, type: date, required: false, default: today}
features: [region]
"""


@pytest.fixture(scope="module")
def numbered() -> Records:
    return Records(parse(NUMBERED, "schema.yaml"), clock=lambda: NOW)


DAY = datetime(2024, 2, 29, tzinfo=UTC).timestamp()
TODAY = datetime(2025, 6, 15, tzinfo=UTC).timestamp()


def test_a_category_of_whole_numbers_may_be_given_as_a_number(numbered: Records) -> None:
    columns = numbered.decode(
        body({"region": 3, "tier": 1, "born": "2024-02-29"}, {"region": "3", "born": "2024-02-29"})
    )
    assert_same(columns, {"region": ["3", "3"], "tier": ["1", None], "born": [DAY, DAY], "asked": [TODAY, TODAY]})
    assert numbered.decode(body({"region": 1.0, "tier": 7, "born": "2024-02-29"}))["tier"][0] == "other"


def test_over_v2_too(numbered: Records) -> None:
    given = [
        Tensor("region", "INT64", np.array([3, 1])),
        Tensor("born", "BYTES", strings(b"2024-02-29", b"2024-02-29")),
    ]
    assert numbered.from_tensors(given)["region"].tolist() == ["3", "1"]
    tier = Tensor("tier", "FP64", np.array([np.nan, 1]))
    assert numbered.from_tensors([*given, tier])["tier"].tolist() == [None, "1"]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"region": 4}, 'record 0, field `region`: expected one of 1, 2, 3, got "4"'),
        ({"region": 2.5}, 'record 0, field `region`: expected one of 1, 2, 3, got "2.5"'),
        ({"region": True}, "record 0, field `region`: expected one of 1, 2, 3, got a boolean"),
        ({"born": 86400}, "record 0, field `born`: expected an ISO 8601 date, such as 2026-11-30, got a number"),
        ({"born": "2024-02-30"}, 'expected an ISO 8601 date, such as 2026-11-30, got "2024-02-30"'),
        ({"born": "2024-02-29T08:00:00"}, 'such as 2026-11-30, got "2024-02-29T08:00:00"'),
        ({"born": "2024-02-29T00:00:00.000001Z"}, "such as 2026-11-30, got"),
        ({"born": None}, "record 0, field `born`: expected an ISO 8601 date, such as 2026-11-30, got null"),
    ],
)
def test_other_numbers_and_times_are_refused(numbered: Records, changed: dict[str, Any], expected: str) -> None:
    assert expected in error_of(numbered, body({"region": 1, "born": "2024-02-29"} | changed))
