"""JSON Schemas of records and decisions: what fits a schema is taken, what is answered fits."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabserve.inference.errors import InvalidRequest
from tabserve.schema import json_schema
from tabserve.schema.reading import parse
from tabserve.schema.records import Records

SCHEMA = parse(
    """\
task: binary
id: payment
record:
  - {name: amount, type: number, min: 0, max: 1000, unit: EUR, description: what is paid}
  - {name: balance, type: number, required: false}
  - {name: visits, type: integer, min: 1}
  - {name: items, type: integer, required: false, default: 3}
  - {name: member, type: boolean, required: false, default: true}
  - {name: country, type: category, values: [DE, FR]}
  - {name: tier, type: category, values: [a, b], required: false, default: b}
  - {name: channel, type: category, values: [web, other], unknown: other}
  - {name: shop, type: category, values: [x, other], unknown: other, required: false, use: audit}
  - {name: region, type: category, values: [1, 2, 3]}
  - {name: floor, type: category, values: [1, other], unknown: other, required: false, default: 1}
  - {name: born, type: date, required: false, default: today}
  - {name: note, type: text, max_length: 3}
  - {name: more, type: text, required: false}
  - {name: opened, type: timestamp}
  - {name: asked, type: timestamp, required: false, default: now}
features: [amount]
outputs: {classes: [sound, failing]}
""",
    "schema.yaml",
)
RECORD: dict[str, Any] = {
    "amount": 12.5,
    "visits": 3,
    "country": "DE",
    "channel": "web",
    "region": 3,
    "note": "",
    "opened": "2024-01-01T00:00:00Z",
}
RECORDS = Records(SCHEMA)
UTF_8 = st.characters(exclude_categories=["Cs"])
FORMATS = jsonschema.FormatChecker(["date", "date-time"])
VALIDATOR = jsonschema.Draft202012Validator(json_schema.record(SCHEMA, float("inf")), format_checker=FORMATS)
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 1000, 1000.5, 2.5, 3.0, 2**53 - 1, 2**53, -(2.0**60), 1e300, 253_402_300_800),
    *("", "a", "abc", "abcd", "äöü", "DE", "FR", "web", "other", "x", "2024-01-01", "2024-01-01T00:00:00Z"),
    *("2024-02-30", "2024-01-01T10:00:00+02:00", "x" * 300, "3", "now", [], ["DE"], {}, {"DE": 1}),
]  # fmt: skip
OTHER_FORMS = {("opened", "2024-01-01"), ("asked", "2024-01-01"), ("born", "2024-01-01T00:00:00Z")}
"""Times that are taken, and are not of the format that the schema names."""
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(UTF_8),
    st.lists,
)


def taken(record: Any) -> bool:
    """Whether a service takes the record."""
    try:
        RECORDS.decode(json.dumps({"instances": [record]}).encode())
    except InvalidRequest:
        return False
    return True


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema.record(SCHEMA, 1e38))
    assert VALIDATOR.is_valid(RECORD)
    assert taken(RECORD)


@pytest.mark.parametrize("name", [*SCHEMA.fields, "unknown"])
def test_a_value_fits_the_schema_if_and_only_if_it_is_taken(name: str) -> None:
    values = [value for value in VALUES if not isinstance(value, str) or (name, value) not in OTHER_FORMS]
    records = [RECORD | {name: value} for value in values] + [{k: v for k, v in RECORD.items() if k != name}]

    assert [VALIDATOR.is_valid(record) for record in records] == [taken(record) for record in records]


def test_an_id_fits_the_schema_if_and_only_if_it_is_taken() -> None:
    """JSON Schema does not tell 3.0 from 3; as an id, only the latter is taken."""
    records = [RECORD, *(RECORD | {"payment": value} for value in VALUES if not isinstance(value, float))]

    assert [VALIDATOR.is_valid(record) for record in records] == [taken(record) for record in records]


def test_nothing_but_a_record_fits() -> None:
    others: list[Any] = [None, [], "x", 3, [RECORD], {}]

    assert [(VALIDATOR.is_valid(other), taken(other)) for other in others] == [(False, False)] * len(others)


@given(ANY, st.sampled_from([*SCHEMA.fields]))
def test_any_value_fits_if_and_only_if_it_is_taken(value: Any, name: str) -> None:
    record = RECORD | {name: value}

    assert VALIDATOR.is_valid(record) == taken(record)


def test_a_field_is_described() -> None:
    fields = json_schema.record(SCHEMA, 1e38)["properties"]

    assert fields["amount"] == {
        "type": "number",
        "minimum": 0,
        "maximum": 1000,
        "x-unit": "EUR",
        "description": "what is paid; in EUR",
    }
    assert fields["balance"] == {"type": ["number", "null"], "minimum": -1e38, "maximum": 1e38}
    assert fields["items"] == {"type": ["integer", "null"], "minimum": 1 - 2**53, "maximum": 2**53 - 1, "default": 3}
    assert fields["tier"] == {"type": ["string", "null"], "enum": ["a", "b", None], "default": "b"}
    assert fields["member"]["default"] is True
    assert fields["shop"]["anyOf"] == [{"type": "string", "enum": ["x", "other"]}, {"type": "string"}, {"type": "null"}]
    assert fields["shop"]["description"] == "checked, and never seen by the model"
    assert fields["region"] == {"type": ["string", "number"], "enum": ["1", "2", "3", 1, 2, 3]}
    assert fields["born"] == {
        "type": ["string", "null"],
        "format": "date",
        "description": "the day of the request, in UTC, if it is absent or null",
    }
    assert fields["asked"]["description"].endswith("; the time of the request if it is absent or null")
    assert "default" not in fields["asked"]
