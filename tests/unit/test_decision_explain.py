"""One decision is explained on one page that shows nothing but text, with the proof that it is decided so again."""

from __future__ import annotations

import hmac
import math
import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

import tabserve.train
from tabserve.bundle import Bundle
from tabserve.cli import main
from tabserve.decision_log.explain import Explanation, Why, explain
from tabserve.decision_log.page import page
from tabserve.decision_log.replayer import Replayer
from tabserve.schema.ranges import Range
from tabserve.schema.timestamps import LATEST
from tabserve.scoring.storage import RunError
from tests.unit.bundles import records, saved
from tests.unit.decided import changed, entries, table, written

HOSTILE = '<script src="//evil">&"'
KEY = "0123456789abcdef0123456789abcdef"
HASH = hmac.digest(KEY.encode(), b"f", "sha256").hex()
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
SCHEMA = """\
task: binary
id: payment
record:
  - {name: amount, type: number, min: 0, unit: EUR, description: "of one <b>payment</b>"}
  - {name: opened, type: timestamp}
  - {name: paid, type: timestamp}
  - {name: web, type: boolean}
  - {name: visits, type: integer, required: false}
  - {name: sex, type: category, values: [f, m], required: false, use: audit, logged: hash}
  - {name: note, type: text, required: false, use: audit}
  - {name: mail, type: text, required: false, use: audit, logged: drop}
features: [amount, web, visits, {name: age, days_between: [opened, paid]}, {name: hour, hour_of: paid}]
outputs:
  classes: [genuine, fraud]
  decision:
    score: fraud
    bands: [{from: 0.8, label: "<b>block</b>"}, {from: 0.2, label: review}, {from: 0, label: accept}]
  reasons: {top: 2, texts: {amount: unusual amount, age: new account}}
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("explained")
    path = folder / "schema.yaml"
    path.write_text(SCHEMA)
    random = np.random.default_rng(5)
    paid = np.datetime64("2026-06-01", "s") + random.integers(0, 10**6, 300).astype("timedelta64[s]")
    frame = pd.DataFrame(
        {
            "amount": random.uniform(0, 1000, 300).round(2),
            "opened": paid - random.integers(0, 10**6, 300).astype("timedelta64[s]"),
            "paid": paid,
            "web": random.random(300) < 0.5,
            "visits": random.integers(0, 9, 300),
        }
    )
    model = XGBClassifier(n_estimators=10)
    model.fit(tabserve.train.features(path, frame), (frame.amount + 100 * frame.visits > 900).astype(int))
    return tabserve.train.save(model, folder / "bundle", name="m", version="1", schema=path, sample=frame)


@pytest.fixture(scope="module")
def log(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """Three decisions; the first record was decided again later."""
    frame = pd.DataFrame(
        {"amount": [950.25, 1.5, 990.0], "opened": [0.0, 86400.0, 0.0], "paid": [864000.5, 172800.0, 1e6]}
    )
    text = {"sex": "f", "note": [HOSTILE, "", ""], "mail": "a@b", "payment": ["p-1", "p-2", HOSTILE]}
    frame = frame.assign(web=True, visits=[np.nan, 2.0, 9.0], **text)
    key = tmp_path_factory.mktemp("key") / "key"
    key.write_text(KEY)
    (made,) = entries(bundle, frame, 3, decision_log_hash_key_file=str(key))
    again = msgspec.structs.replace(made, time=made.time + 3600, request_id="later")
    return table(bundle, made, again)


def explained(log: pa.Table, bundle: Bundle, folder: Path, identity: str = "p-1") -> Explanation:
    return explain(str(written(log, folder)), identity, [Replayer(bundle.path)], NOW)


def test_what_a_client_got_is_explained_and_not_its_copy_for_a_shadow(
    bundle: Bundle, log: pa.Table, tmp_path: Path
) -> None:
    at = log.schema.get_field_index("source")
    copies = log.set_column(at, log.schema.field(at), [["shadow"] * len(log)])
    asked = explained(pa.concat_tables([log[:3], copies[3:]]), bundle, tmp_path)
    copied = explained(copies, bundle, tmp_path)

    assert (asked.facts["source"], len(asked.others)) == ("online", 1)
    assert asked.others[0].endswith(" UTC for a shadow")
    assert (copied.facts["source"], copied.time) == ("shadow", asked.others[0].removesuffix(" for a shadow"))


def test_an_explanation_tells_what_was_decided_on_what(bundle: Bundle, log: pa.Table, tmp_path: Path) -> None:
    found = explained(log, bundle, tmp_path)
    assert (found.id, found.bundle, found.result) == ("p-1", "m 1", "equal")
    assert found.facts["release"] == "a-1"
    assert found.facts["request"] == "later, record 0"
    assert len(found.others) == 1
    assert found.time > found.others[0]
    assert found.bands == [
        Range("accept", None, 0.2, found.decision == "accept"),
        Range("review", 0.2, 0.8, found.decision == "review"),
        Range("<b>block</b>", 0.8, None, found.decision == "<b>block</b>"),
    ]
    assert [(one.name, one.value, one.unit, one.note) for one in found.values] == [
        ("amount", "950.25", "EUR", ""),
        ("opened", "1970-01-01 00:00:00 UTC", "", ""),
        ("paid", "1970-01-11 00:00:00.5 UTC", "", ""),
        ("web", "true", "", ""),
        ("visits", "missing", "", ""),
        ("sex", HASH, "", "only its keyed hash is in the log; not seen by the model"),
        ("note", HOSTILE, "", "not seen by the model"),
        ("mail", "", "", "not in the log; not seen by the model"),
    ]


def test_contributions_add_up_to_the_score(bundle: Bundle, log: pa.Table, tmp_path: Path) -> None:
    found = explained(log, bundle, tmp_path)
    why = found.why
    assert isinstance(why, Why)
    assert found.score is not None
    assert why.total == pytest.approx(math.log(found.score / (1 - found.score)), abs=1e-5)
    assert why.total == pytest.approx(why.base + sum(push.amount for push in why.pushes))
    assert why.scale == "the margin of fraud, which becomes the score"
    raising = [push.text or push.name for push in why.pushes if push.amount > 0]
    assert [text for text, _ in found.reasons] == raising[:2]
    assert {push.name: push.value for push in why.pushes} == {
        "amount": "950.25 EUR", "web": "true", "visits": "missing", "age": "10 days", "hour": "0",
    }  # fmt: skip


def test_a_page_needs_nothing_but_itself_and_shows_only_text(bundle: Bundle, log: pa.Table, tmp_path: Path) -> None:
    html = page(explained(log, bundle, tmp_path, HOSTILE))
    html += page(explained(log, bundle, tmp_path))
    assert HOSTILE not in html
    assert "&lt;script src=" in html
    assert "<b>" not in html
    assert not re.findall(
        r"<script|<link|<img|<iframe|@import|url\(|\b(?:src|href)=", html.replace("&lt;script src=", "")
    )


def test_a_page_can_be_read_without_seeing_it(bundle: Bundle, log: pa.Table, tmp_path: Path) -> None:
    html = page(explained(log, bundle, tmp_path))
    svgs = re.findall(r"<svg[^>]*>", html)
    assert len(svgs) == 6
    assert all('role="img" aria-labelledby=' in svg or 'aria-hidden="true"' in svg for svg in svgs)
    assert "<title id=" in html
    assert "accept: below 0.2. review: from 0.2 to below 0.8." in html
    identifiers = re.findall(r'\bid="([^"]*)"', html)
    assert len(identifiers) == len(set(identifiers))


def test_the_mark_is_at_the_scores_place(bundle: Bundle, log: pa.Table, tmp_path: Path) -> None:
    found = explained(log, bundle, tmp_path)
    assert found.score is not None
    (at,) = re.findall(r'class="mark" d="M([\d.]+) ', page(found))
    assert float(at) == pytest.approx(16 + found.score * 688, abs=0.1)


def test_a_decision_that_differs_says_what(bundle: Bundle, log: pa.Table, tmp_path: Path) -> None:
    found = explained(changed(log, "score", 3, 0.125), bundle, tmp_path)
    assert found.result == "differs"
    assert re.search(r"Not the same.*<li>score was 0\.125, is 0\.", page(found), re.DOTALL)


def test_a_decision_that_cannot_be_made_again_says_why(bundle: Bundle, log: pa.Table, tmp_path: Path) -> None:
    rows = log.to_pylist()
    kept = [field for field in log.schema.field("record").type if field.name != "amount"]
    at = log.schema.get_field_index("record")
    found = explained(
        pa.Table.from_pylist(rows, log.schema.set(at, pa.field("record", pa.struct(kept)))), bundle, tmp_path
    )
    assert (found.result, found.why) == ("not replayable", None)
    assert "Not replayable: field amount, which the model needs, is not in the log." in page(found)


def test_an_altered_record_that_the_model_does_not_take_is_still_shown(
    bundle: Bundle, log: pa.Table, tmp_path: Path
) -> None:
    found = explained(changed(log, "record.amount", 3, None), bundle, tmp_path)
    assert (found.result, found.why) == ("differs", None)
    assert found.no_why == "feature `amount`: expected a value, got none at row 0"


def test_the_last_moment_that_a_schema_takes_is_shown(bundle: Bundle, log: pa.Table, tmp_path: Path) -> None:
    found = explained(changed(log, "record.paid", 3, LATEST), bundle, tmp_path)

    assert next(one.value for one in found.values if one.name == "paid") == "9999-12-31 23:59:59 UTC"


def test_a_value_without_bands_is_explained(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), LinearRegression())
    bundle = saved(model, tmp_path, "regression", fields=("amount", "age"), engine="sklearn")
    made = table(bundle, *entries(bundle, records()[["amount", "age"]][:3], 1, "predict"))
    found = explained(made, bundle, tmp_path / "log", "r-1/0")
    assert (found.decision, found.result, found.bands) == ("", "equal", [])
    assert found.score == pytest.approx(found.why.total if found.why else None)
    html = page(found)
    assert f"<h1>{found.score:.6g}</h1>" in html
    assert "<title>Decision: r-1/0</title>" in html


def test_what_is_not_there_is_refused(bundle: Bundle, log: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no decision with the id 'p-9'"):
        explained(log, bundle, tmp_path, "p-9")
    other = changed(log, "digest", 3, "sha256:0")
    with pytest.raises(
        RunError, match=r"p-1: none of the bundles has the digest sha256:0; given: sha256:.*Give the bundle"
    ):
        explained(other, bundle, tmp_path)


def test_the_command_prints_text_or_writes_a_page(bundle: Bundle, log: pa.Table, tmp_path: Path) -> None:
    written(log, tmp_path / "log")
    command = ["log", "explain", str(tmp_path / "log"), "--bundle", str(bundle.path), "--id"]
    told = CliRunner().invoke(main, [*command, "p-1"])
    assert told.exit_code == 0
    assert "equal in every bit" in told.output
    assert re.search(r"^amount +950\.25 EUR +\+", told.output, re.MULTILINE)
    wrote = CliRunner().invoke(main, [*command, "p-1", "--out", str(tmp_path / "page.html")])
    assert wrote.output == f"{tmp_path / 'page.html'}: p-1, equal\n"
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert CliRunner().invoke(main, [*command, "p-9"]).exit_code == 2
