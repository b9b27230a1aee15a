"""schema.yaml: what is read, and where an error points."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabserve.schema.places import MalformedError, Places
from tabserve.schema.reading import SchemaError, load, parse
from tabserve.schema.schema import Band, Decision, Derived, Field, Outputs, Reasons, Schema
from tests.serving import ROOT

TEXT = """\
task: binary
record:
  - {name: amount, type: number, min: 0, max: 100, unit: EUR}
  - {name: country, type: category, values: [DE, FR, IT]}
  - {name: opened, type: timestamp}
  - {name: asked, type: timestamp, required: false, default: now}
  - {name: income, type: number, required: false, default: null}
features: [amount, country, {name: age_days, days_between: [opened, asked]}, income]
outputs:
  classes: [accept, fraud]
  decision:
    score: fraud
    bands: [{from: 0.9, label: block}, {from: 0.4, label: review}, {from: 0, label: accept}]
  reasons: {top: 3, texts: {amount: unusual amount}}
"""
REGRESSION = """\
task: regression
record: [{name: size, type: number}]
features: [size]
outputs:
  decision: {score: predict, bands: [{from: 10, label: high}, {from: -.inf, label: low}]}
"""


def changed(old: str, new: str, text: str = TEXT) -> str:
    assert old in text
    return text.replace(old, new, 1)


def error_of(text: str) -> str:
    with pytest.raises(SchemaError) as caught:
        parse(text, "schema.yaml")
    return str(caught.value)


def test_reasons_for_a_band_need_bands() -> None:
    text = changed("top: 3", "for: [block]", re.sub(r"  decision:\n.*\n.*\n", "", TEXT))
    assert "`outputs.reasons.for[0]`: expected a band, got `block`; there is none" in error_of(text)


def test_a_whole_schema_is_read() -> None:
    schema = parse(TEXT, "schema.yaml")
    assert schema.feature_names == ("amount", "country", "age_days", "income")
    assert schema.features[2] == Derived("age_days", days_between=("opened", "asked"))
    assert schema.fields["country"].values == ("DE", "FR", "IT")
    assert schema.outputs.decision is not None
    assert schema.outputs.decision.bands[0] == Band(0.9, "block")


def test_a_regression_has_bands_down_to_minus_infinity() -> None:
    assert parse(REGRESSION, "schema.yaml").task == "regression"


def test_a_file_is_read_as_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text(changed("unusual amount", "höher als üblich"), encoding="utf-8")
    reasons = load(path).outputs.reasons
    assert reasons is not None
    assert reasons.texts == {"amount": "höher als üblich"}
    path.write_bytes(b"task: \xff")
    with pytest.raises(SchemaError, match="expected UTF-8"):
        load(path)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("amount, type:", "amount, typ:", "3:20: `record[0].typ`: unknown key (did you mean `type`?)"),
        ("type: number", "type: numbr", "3:26: `record[0].type`: expected one of number, integer, boolean"),
        ("DE, FR", "DE, NO", "4:50: `record[1].values[1]`: expected str, got bool (false): put it in quotes"),
        ("DE, FR", "DE, DE", "4:50: `record[1].values[1]`: `DE` is defined 2 times"),
        ("[DE, FR, IT]", "[]", "4:5: `record[1]`: a category needs `values`"),
        ("FR, IT]", "FR, IT], unknown: other", '`unknown: other` needs "other" in `values`'),
        ("min: 0", "min: 101", "3:39: `record[0].min`: expected `min` at most `max`, got 101 and 100"),
        ("min: 0", "min: .nan", "3:39: `record[0].min`: expected a finite number, got nan"),
        ("min: 0", "values: [a]", "3:42: `record[0].values`: `values` is for a category, got a number"),
        ("opened, type: timestamp", "opened, type: timestamp, min: 0", "`min` is for a number or integer"),
        ("name: amount", 'name: "a\\"b"', "3:12: `record[0].name`: expected str matching regex"),
        ("name: asked", "name: opened", "`record[3]`: `opened` is defined 2 times; names must be unique"),
        (", income]", ", incom]", "`features[3]`: expected a record field, got `incom` (did you mean `income`?)"),
        (", income]", ", amount]", "`features[3]`: `amount` is defined 2 times; names must be unique"),
        ("[amount, country", "[opened, country", "`features[0]`: the timestamp `opened` is not a feature by itself"),
        ("[opened, asked]", "[opened, country]", "`features[2].days_between`: expected a timestamp or date field"),
        ("name: age_days", "name: amount", "is defined 2 times"),
        ("name: age_days", "name: opened", "`opened` is already a record field"),
        ("days_between: [opened, asked]", "hour_of: asked, weekday_of: asked", "expected exactly one of days_between"),
        (
            ", days_between: [opened, asked]",
            "",
            "hour_of, weekday_of, month_of, ratio, log, got 0",
        ),
        ("default: now", "default: nw", '6:62: `record[3].default`: expected "now", an ISO 8601 time, or seconds'),
        (
            "default: now",
            "default: 2024-01-01",
            "6:62: `record[3].default`: expected bool | float | str | null, got date",
        ),
        ("required: false, default: now", "default: now", "a required field has no default: set `required: false`"),
        ("default: null", "default: lots", "7:60: `record[4].default`: expected a finite number, got 'lots'"),
        ("default: null", "min: 0, default: -1", "expected a number from 0 to inf, got -1.0"),
        ("[accept, fraud]", "[accept]", "10:12: `outputs.classes`: expected two classes for a binary task, got 1"),
        ("[accept, fraud]", "[accept, accept]", "`outputs.classes[1]`: `accept` is defined 2 times"),
        ("[accept, fraud]", "[0, 1]", "`outputs.classes[0]`: expected str, got int (0): put it in quotes"),
        ("score: fraud", "score: frau", "12:12: `outputs.decision.score`: expected a score, got `frau` (did you mean"),
        (
            "score: fraud",
            "score: fraud\n    value: {blok: {fraud: 1}}",
            "expected a decision, got `blok` (did you mean `block`?)",
        ),
        (
            "score: fraud",
            "score: fraud\n    value: {block: {frau: 1}}",
            "expected a class, got `frau` (did you mean `fraud`?)",
        ),
        ("score: fraud", "score: fraud\n    value: {block: {fraud: .inf}}", "expected a finite number, got inf"),
        ("from: 0.4", "from: 0.95", "13:47: `outputs.decision.bands[1].from`: expected less than 0.9"),
        ("from: 0,", "from: 0.1,", "`outputs.decision.bands[2].from`: the lowest band must start at 0, got 0.1"),
        ("from: 0.9", "from: 1.5", "`outputs.decision.bands[0].from`: expected a probability, 0 to 1, got 1.5"),
        ("from: 0.9", "from: .nan", "`outputs.decision.bands[0].from`: expected a number, got nan"),
        ("{from: 0.4,", "{", "`outputs.decision.bands[1]`: missing key from"),
        ("top: 3", "top: 0", "14:18: `outputs.reasons.top`: expected int >= 1"),
        (
            "top: 3",
            "for: [block, revew]",
            "14:26: `outputs.reasons.for[1]`: expected a band, got `revew` (did you mean",
        ),
        ("top: 3", "for: [block, block]", "`outputs.reasons.for[1]`: `block` is defined 2 times"),
        ("top: 3", "fro: [block]", "`outputs.reasons.fro`: unknown key (did you mean `for`?)"),
        ("{amount: unusual", "{amout: unusual", "`outputs.reasons.texts.amout`: expected a feature, got `amout`"),
        ("texts: {amount: un", "codes: {amout: un", "`outputs.reasons.codes.amout`: expected a feature, got `amout`"),
        ("unit: EUR", "logged: hide", '`record[0].logged`: expected one of keep, hash, drop, got "hide"'),
        ("unit: EUR", "loged: drop", "`record[0].loged`: unknown key (did you mean `logged`?)"),
        ("classes:", "default: [predit]\n  classes:", "`outputs.default[0]`: expected one of predict, predict_proba"),
        ("record:", "record:\nrecord:", "3:1: key `record` is defined twice"),
        ("task: binary\n", "", "1:1: missing key task"),
        ("task: binary", "task: regression", "`outputs.classes`: a regression has no classes"),
        ("task: binary", "task: [", "expected"),
    ],
)
def test_an_error_names_line_column_and_expectation(old: str, new: str, expected: str) -> None:
    message = error_of(changed(old, new))
    assert message.startswith("schema.yaml:")
    assert expected in message


def test_everything_wrong_is_told_at_once_in_the_order_of_the_lines() -> None:
    text = TEXT.replace("type: number, min: 0", "typ: number, min: a").replace("[DE, FR, IT]", "[DE, no, 007]")
    assert error_of(text.replace("classes:", "clases:").replace("from: 0.4", "from: 0.95")).splitlines() == [
        "schema.yaml:3:5: `record[0]`: missing key type",
        "schema.yaml:3:20: `record[0].typ`: unknown key (did you mean `type`?)",
        'schema.yaml:3:38: `record[0].min`: expected float | null, got str ("a")',
        "schema.yaml:4:50: `record[1].values[1]`: expected str, got bool (false): put it in quotes",
        "schema.yaml:4:54: `record[1].values[2]`: expected str, got int (7): put it in quotes",
        "schema.yaml:10:3: `outputs.clases`: unknown key (did you mean `classes`?)",
        "schema.yaml:13:47: `outputs.decision.bands[1].from`: expected less than 0.9: bands go from the highest down, "
        "got 0.95",
    ]


def test_what_contradicts_is_told_together_also_if_the_outputs_are_unreadable() -> None:
    text = TEXT.replace("[amount, country", "[amuont, opened").replace("score: fraud", "score: [fraud]")
    assert [line.partition(": ")[2][:40] for line in error_of(text).splitlines()] == [
        "`features[0]`: expected a record field, ",
        "`features[1]`: the timestamp `opened` is",
        "`outputs.decision.score`: expected str, ",
    ]


def test_a_long_list_of_problems_is_cut() -> None:
    lines = error_of(TEXT.replace("[DE, FR, IT]", str([0.5 + at for at in range(60)]))).splitlines()
    assert len(lines) == 51
    assert lines[-1] == "and 10 more"


def test_whole_numbers_among_categories_need_no_quotes() -> None:
    text = TEXT.replace("[DE, FR, IT]", "[1, 2, -3], required: false, default: 2")
    field = parse(text, "schema.yaml").fields["country"]
    assert (field.values, field.default, field.numbered) == (("1", "2", "-3"), "2", True)
    assert not parse(TEXT, "schema.yaml").fields["country"].numbered
    beyond = parse(TEXT.replace("[DE, FR, IT]", "[9007199254740993, 9007199254740992]"), "schema.yaml")
    assert not beyond.fields["country"].numbered


@pytest.mark.parametrize(("written", "read"), [("010", 8), ("1_000", 1000), ("0x1F", 31), ("+5", 5), ("1:30", 90)])
def test_a_number_that_yaml_reads_as_another_needs_quotes(written: str, read: int) -> None:
    message = error_of(changed("DE, FR", f"DE, {written}"))
    assert f"expected str, got int ({read}): put it in quotes" in message
    assert parse(changed("DE, FR", f'DE, "{written}"'), "schema.yaml").fields["country"].values[1] == written


DATES = """\
task: regression
record:
  - {name: born, type: date}
  - {name: asked, type: date, required: false, default: today}
  - {name: seen, type: timestamp}
  - {name: income, type: number, min: 1}
  - {name: rent, type: number, required: false}
features:
  - {name: age, days_between: [born, seen]}
  - {name: month, month_of: born}
  - {name: share, ratio: [rent, income]}
  - {name: size, log: income}
"""


def test_features_may_miss_where_their_rule_has_no_value() -> None:
    schema = parse(DATES, "schema.yaml")
    assert schema.may_miss == {"rent", "share"}
    assert schema.whole == {"month"}
    optional = DATES.replace("[rent, income]", "[income, rent]").replace("rent, type: number", "rent, type: integer")
    assert parse(optional, "s").may_miss == {"rent", "share"}
    assert parse(DATES.replace("min: 1", "min: 0"), "s").may_miss == {"rent", "share", "size"}
    assert parse(DATES.replace("min: 1", "max: -1"), "s").may_miss == {"rent", "share", "size"}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("month_of: born", "hour_of: born", "expected a timestamp field, got `born`; there is seen"),
        (
            "month_of: born",
            "month_of: rent",
            "or date field, got `rent`; there is born, asked, seen",
        ),
        ("[rent, income]", "[rent, born]", "expected a number or integer field, got `born`"),
        ("log: income", "log: seen", "expected a number or integer field, got `seen`"),
        ("[rent, income]", "[rent]", "expected array of length 2, got 1"),
        (
            "{name: month, month_of: born}",
            "born",
            "the date `born` is not a feature by itself: derive one with days_between or weekday_of or month_of",
        ),
        ("default: today", "default: now", "expected \"today\", or an ISO 8601 date, got 'now'"),
        ("default: today", "default: 2024-01-01", 'got date ("2024-01-01"): put it in quotes'),
        ("default: today", "default: 3", 'expected "today", or an ISO 8601 date, got 3.0'),
        ("default: today", 'default: "2024-01-01T10:00:00"', 'expected "today", or an ISO 8601 date, got'),
        ("born, type: date", "born, type: date, min: 0", "`min` is for a number or integer, got a date"),
    ],
)
def test_dates_and_derived_features_are_refused_by_name(old: str, new: str, expected: str) -> None:
    assert expected in error_of(changed(old, new, DATES))


def test_a_decision_over_a_class_needs_class_names() -> None:
    assert "needs `outputs.classes`" in error_of(changed("  classes: [accept, fraud]\n", ""))


def test_a_regression_scores_its_prediction() -> None:
    assert "expected a score, got `size`; there is predict" in error_of(changed("predict,", "size,", REGRESSION))
    assert "must start at -.inf, got 0" in error_of(changed("-.inf", "0", REGRESSION))


@pytest.mark.parametrize(
    "text", ["", "3", "[]", "a: &a [*a]", "[" * 5000, "task: \x00", "? [a]\n: 3", "a: 1\n---\nb: 2"]
)
def test_what_is_no_schema_is_a_schema_error(text: str) -> None:
    assert error_of(text).startswith("schema.yaml:1:") or error_of(text).startswith("schema.yaml:2:")


STRUCTS = (Schema, Field, Derived, Outputs, Decision, Band, Reasons)


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_key_is_documented(struct: type[msgspec.Struct]) -> None:
    page = (ROOT / "docs" / "schema.md").read_text()
    rows = "\n".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| `"))
    assert [key for key in struct.__struct_encode_fields__ if f"`{key}`" not in rows] == []


def test_the_documented_schema_is_read() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "schema.md").read_text(), re.DOTALL)
    assert parse(text, "schema.md").feature_names == ("amount", "country", "account_age_days", "income")


@given(st.text())
def test_any_text_is_read_or_malformed(text: str) -> None:
    with suppress(MalformedError):
        Places(text)


@given(st.data())
def test_any_damage_to_a_schema_is_found_or_harmless(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(TEXT)))
    end = data.draw(st.integers(start, min(len(TEXT), start + 8)))
    text = TEXT[:start] + data.draw(st.text("abc:{}[],-&*!'\"\n 01.", max_size=4)) + TEXT[end:]
    with suppress(SchemaError):
        assert parse(text, "schema.yaml").feature_names


def test_an_id_is_none_of_the_record_fields() -> None:
    assert "`id`: `amount` is already a record field" in error_of(f"id: amount\n{TEXT}")
    assert "`id`: `score` is the name of an answer" in error_of(f"id: score\n{TEXT}")
    assert parse(f"id: payment\n{TEXT}", "schema.yaml").id == "payment"


@pytest.mark.parametrize("field", ["amount", "opened"])
def test_an_audited_field_is_no_feature(field: str) -> None:
    text = re.sub(rf"(name: {field}, )", r"\1use: audit, ", TEXT)
    assert f"the model never sees `{field}`: its use is audit" in error_of(text)
