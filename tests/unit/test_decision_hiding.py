"""What is dropped or hashed: how values are written to be hashed, and that nothing of them stays."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from tabserve.bundle import BundleError
from tabserve.bundle.model_input import RecordFeatures
from tabserve.decision_log.hiding import Hiding
from tabserve.inference.errors import InvalidRequest
from tabserve.schema.columns import Columns
from tabserve.schema.reading import parse
from tabserve.schema.records import Records
from tests.serving import ROOT
from tests.unit.test_decision_record import ALL_TYPES
from tests.unit.unsaved import REGRESSION, REGRESSOR, bundle_of

KEY = b"0123456789abcdef"
HASHED = ALL_TYPES.replace("}\n", ", logged: hash}\n", 10)
RECORD: dict[str, Any] = {
    "amount": 12.5,
    "country": "DE",
    "visits": 3,
    "member": True,
    "note": "Zoë",
    "opened": "2026-11-29T12:00:00.5+01:00",
    "asked": 0,
    "born": "1990-02-03",
}
WRITTEN = {
    "amount": "12.5",
    "country": "DE",
    "visits": "3",
    "member": "true",
    "note": "Zoë",
    "opened": "2026-11-29T11:00:00.500000+00:00",
    "asked": "1970-01-01T00:00:00.000000+00:00",
    "born": "1990-02-03",
    "rate": "0.1",
}


@pytest.fixture
def key(tmp_path: Path) -> str:
    (tmp_path / "key").write_bytes(KEY + b"\n")
    return str(tmp_path / "key")


def checked(text: str, *records: dict[str, Any]) -> Columns:
    return Records(parse(text, "schema.yaml")).convert(list(records))


def hidden(text: str, key: str, *records: dict[str, Any]) -> Columns:
    return Hiding(parse(text, "schema.yaml"), key, "KEY")(checked(text, *records))


def by_openssl(value: str) -> str:
    """The hash that docs/decisions.md tells people to look for."""
    command = ["openssl", "dgst", "-sha256", "-hmac", KEY.decode()]
    done = subprocess.run(command, input=value.encode(), capture_output=True, check=True)
    return done.stdout.decode().split()[-1]


def test_every_type_is_hashed_in_its_documented_form(key: str) -> None:
    assert HASHED.count("logged: hash") == len(parse(ALL_TYPES, "schema.yaml").record)
    made = hidden(HASHED, key, RECORD)
    assert {name: column.tolist() for name, column in made.items()} == {
        **{name: [by_openssl(value)] for name, value in WRITTEN.items()},
        "sex": [None],
    }


def test_the_documented_command_finds_a_hashed_value(key: str) -> None:
    page = (ROOT / "docs" / "decisions.md").read_text()
    command, hashed = re.findall(r"\$ (printf .*openssl.*)\n.*= ([0-9a-f]{64})", page)[0]
    value = command.split()[2]
    assert hidden(HASHED, key, RECORD | {"note": value})["note"].tolist() == [hashed]
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == hashed


@pytest.mark.parametrize(
    ("name", "value", "written"),
    [
        ("amount", 3000.0, "3000"),
        ("amount", -0.0, "0"),
        ("amount", 1e16, "1e+16"),
        ("amount", 1e-7, "1e-07"),
        ("visits", 2**53 - 1, "9007199254740991"),
        ("opened", 253_402_300_799.999999, "9999-12-31T23:59:59.000000+00:00"),
        ("opened", -62_135_596_800, "0001-01-01T00:00:00.000000+00:00"),
    ],
)
def test_numbers_and_times_have_one_form(name: str, value: float, written: str, key: str) -> None:
    assert hidden(HASHED, key, RECORD | {name: value})[name].tolist() == [by_openssl(written)]


def test_kept_columns_do_not_hold_the_memory_of_hidden_ones(key: str) -> None:
    text = ALL_TYPES.replace("amount, type: number", "amount, type: number, logged: drop", 1)
    before, made = checked(text, RECORD, RECORD), hidden(text, key, RECORD, RECORD)
    assert made.keys() == before.keys() - {"amount"}
    assert [name for name, column in made.items() if column.base is not None] == []
    for name, column in made.items():
        np.testing.assert_array_equal(column, before[name])


def test_where_nothing_is_hidden_columns_are_not_copied() -> None:
    columns = checked(ALL_TYPES, RECORD)
    assert Hiding(parse(ALL_TYPES, "schema.yaml"), "", "KEY")(columns) is columns


@pytest.mark.parametrize(
    ("content", "problem"), [(b"short\n", "holds 5 bytes. Set it"), (None, "cannot be read: No such file")]
)
def test_a_key_that_is_none_is_refused(content: bytes | None, problem: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(BundleError, match=f"^KEY: .*key {problem}"):
        hidden(HASHED, str(tmp_path / "key"), RECORD)


CANARY = "a-canary-of-a-value"
WRONG: dict[str, Any] = dict.fromkeys(
    ("amount", "visits", "member", "opened", "asked", "born", "rate", "sex"), CANARY
) | {"country": 7}


@pytest.mark.parametrize("wrong", [*({name: value} for name, value in WRONG.items()), WRONG], ids=str)
def test_errors_do_not_tell_the_values_of_hidden_fields(wrong: dict[str, Any]) -> None:
    reader = Records(parse(HASHED, "schema.yaml"))
    body = orjson.dumps({"instances": [RECORD | wrong]})
    with pytest.raises(InvalidRequest) as refused:
        reader.decode(body)
    faults = reader.sift(body).faults
    assert {fault.field for fault in faults} == set(wrong)
    assert CANARY not in f"{refused.value.message} {faults}"
    (told,) = {fault.got for fault in faults}
    assert told == "a value that is not shown"


def test_an_error_of_the_model_does_not_tell_the_values_of_hidden_fields() -> None:
    text = REGRESSION.replace("number}", "number, logged: drop}")
    features = RecordFeatures(bundle_of(text, REGRESSOR), None)
    with pytest.raises(InvalidRequest, match=r"`size`: expected a number within .*, got a value that is not shown"):
        features({"size": np.array([7.25e200])})
