"""A service's page for browsers: what is in it, what it may load, who gets it, and what its figures say."""

from __future__ import annotations

import html as text
import json
import re
from base64 import b64encode
from collections.abc import Generator
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression

from tabserve.arrays import Array
from tabserve.bundle import Bundle, expected
from tabserve.home import contents
from tabserve.home.boxes import Box
from tabserve.home.contents import Contents
from tabserve.home.page import page
from tabserve.inference.metrics import SECONDS, Histogram
from tabserve.inference.rest.home import wants_html
from tabserve.inference.settings import ServerSettings, read
from tabserve.schema.timestamps import seconds
from tests.contract.target import Answer, Target
from tests.serving import Service, running
from tests.unit.bundles import saved
from tests.unit.cores import Cores
from tests.unit.served import save

BANDS = (
    "  decision: {score: fraud, bands: [{from: 0.9, label: stop}, {from: 0.2, label: look}, {from: 0, label: go}]}\n"
)
MODELS: dict[str, Any] = {
    "binary": LogisticRegression(max_iter=1000),
    "multiclass": RandomForestClassifier(3, random_state=0),
    "regression": LinearRegression(),
    "anomaly": IsolationForest(n_estimators=5, random_state=0),
}
HOSTILE = "<script>alert(1)</script>&'"
EVERY = f"""\
task: binary
id: key
intended_use: "Use {HOSTILE}"
record:
  - {{name: "{HOSTILE}", type: number, min: -1.5, max: 10000000, unit: "{HOSTILE}", description: "{HOSTILE}"}}
  - {{name: count, type: integer}}
  - {{name: shop, type: boolean}}
  - {{name: colour, type: category, values: [red, "{HOSTILE}", other], unknown: other}}
  - {{name: opened, type: timestamp}}
  - {{name: paid, type: timestamp, required: false, default: now}}
  - {{name: born, type: date, required: false}}
  - {{name: secret, type: number, logged: drop}}
  - {{name: note, type: text, max_length: 300, use: audit}}
features:
  - "{HOSTILE}"
  - count
  - shop
  - {{name: hour, hour_of: opened}}
outputs:
  classes: [good, "{HOSTILE}"]
  reasons: {{top: 2, texts: {{count: "{HOSTILE}"}}}}
"""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """A bundle of each task."""
    extra = {"binary": BANDS}
    return {
        task: saved(model, tmp_path_factory.mktemp(task), task, extra=extra.get(task, ""))
        for task, model in MODELS.items()
    }


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with a field of each type, and with names that are not HTML."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            HOSTILE: random.normal(0, 1, 60).round(3).clip(-1.5),
            "count": random.integers(0, 9, 60),
            "shop": random.random(60) < 0.5,
            "colour": ["red", HOSTILE, "other"] * 20,
            "opened": pd.to_datetime("2026-03-01T12:34:56.25Z") + pd.to_timedelta(range(60), "h"),
            "paid": pd.to_datetime("2026-04-01T00:00:00Z"),
            "born": "1970-02-03",
            "secret": 4.5,
            "note": "a\nb",
        }
    )
    folder = tmp_path_factory.mktemp("every")
    path = folder / "schema.yaml"
    path.write_text(EVERY)
    import tabserve.train

    model = LogisticRegression().fit(tabserve.train.features(path, frame), frame[HOSTILE] > 0)
    return save(model, folder, EVERY, frame)


def shown(bundle: Bundle, service: str) -> Contents:
    return (
        contents.of_transformer(bundle, "", "") if service == "transformer" else contents.of_predictor(bundle, "", "")
    )


class Parsed(HTMLParser):
    """A page's elements with their attributes, and the content of its styles and scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem:
            self.inline.append((self.cdata_elem, data))

    @property
    def attributes(self) -> list[tuple[str, str | None]]:
        return [each for _, attributes in self.elements for each in attributes.items()]


@pytest.mark.parametrize("service", ["transformer", "predictor"])
@pytest.mark.parametrize("task", MODELS)
def test_the_page_needs_nothing_but_itself(bundles: dict[str, Bundle], task: str, service: str) -> None:
    home = page(shown(bundles[task], service))
    parsed = Parsed(home.html)

    links = [value for name, value in parsed.attributes if name in ("src", "href", "action", "srcset", "data")]
    assert links == ["data:,", "openapi.json", "v2/models/m/schema", "v2/models/m"]
    assert not re.findall(r"//[a-z]|@import|url\(", re.sub(r"// [A-Z]", "", home.html))
    assert not [name for name, _ in parsed.attributes if name == "style" or name.startswith("on")]
    identifiers = [value for name, value in parsed.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    named = {value for name, value in parsed.attributes if name in ("aria-labelledby", "for", "aria-describedby")}
    assert {each for value in named for each in str(value).split()} <= {*identifiers}


def test_a_browser_runs_and_shows_only_what_the_policy_names(bundles: dict[str, Bundle]) -> None:
    home = page(shown(bundles["binary"], "transformer"))
    rules = dict(rule.split(" ", 1) for rule in home.policy.split("; "))
    run = [(kind, content) for kind, content in Parsed(home.html).inline if not content.startswith("{")]
    hashes = [(kind, f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'") for kind, content in run]

    assert len(hashes) == 3
    assert rules == {
        "default-src": "'none'",
        "style-src": " ".join(each for kind, each in hashes if kind == "style"),
        "script-src": " ".join(each for kind, each in hashes if kind == "script"),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }


@pytest.mark.parametrize("service", ["transformer", "predictor"])
def test_names_are_text_and_never_html(every: Bundle, service: str) -> None:
    home = page(shown(every, service))
    kinds = [tag for tag, _ in Parsed(home.html).elements]

    assert HOSTILE not in home.html
    assert kinds.count("script") == 2
    assert text.escape(HOSTILE, quote=False).replace("'", "&#39;") in home.html
    (data,) = [json.loads(content) for _, content in Parsed(home.html).inline if content.startswith("{")]
    assert data == json.loads(json.dumps(shown(every, service).script)) | {"figures": "page/figures"}
    assert HOSTILE in data["sources"]


def test_the_form_holds_the_first_record_of_the_reference(every: Bundle) -> None:
    made = {box.name: box for box in shown(every, "transformer").boxes}
    record = expected.record(every, 0)

    assert list(made) == ["key", *every.schema.fields]
    assert float(made[HOSTILE].value) == record[HOSTILE]
    assert int(made["count"].value) == record["count"]
    assert [chosen(made[name]) for name in ("shop", "colour")] == [record["shop"], record["colour"]]
    assert made["shop"].named == ("true", "false")
    assert made["opened"].value == "2026-03-01T12:34:56.250000Z"
    assert seconds(made["opened"].value) == record["opened"]
    assert (made["born"].value, made["note"].value) == ("1970-02-03", "a\nb")
    assert [made[name].value for name in ("key", "secret")] == ["", ""]
    assert made["secret"].hint == "left empty here, as it is in the log"
    assert made[HOSTILE].hint == f"-1.5 to 10,000,000 {HOSTILE}"
    assert made["colour"].hint == "anything else is other"
    assert [made[name].empty for name in ("paid", "born", "count")] == ["default: now", "not given", ""]
    assert [made[name].long for name in ("note", "born")] == [True, False]


def chosen(box: Box) -> bool | str:
    return box.options[int(box.value)]


def test_the_predictors_form_holds_features_and_codes_as_categories(tmp_path: Path) -> None:
    from xgboost import XGBClassifier

    model = XGBClassifier(n_estimators=2, enable_categorical=True)
    made = saved(model, tmp_path, fields=("amount", "country", "income"))
    row = expected.record(made, 0)
    boxes = shown(made, "predictor").boxes

    assert [box.name for box in boxes] == ["amount", "country", "income"]
    assert [np.float32(boxes[at].value) for at in (0, 2)] == [np.float32(row[name]) for name in ("amount", "income")]
    assert boxes[0].value == str(row["amount"])
    assert chosen(boxes[1]) == row["country"]


@pytest.mark.parametrize("task", MODELS)
def test_the_transformer_answers_what_the_page_asks_for(bundles: dict[str, Bundle], task: str) -> None:
    bundle = bundles[task]
    script = shown(bundle, "transformer").script
    record = pd.DataFrame([expected.record(bundle, 0)])
    answer = Cores(bundle).outputs(record, *script["outputs"])

    assert set(answer) == set(script["outputs"])
    assert {"score", *(["label"] if script["classes"] else [])} <= set(answer)
    widths = {name: array.shape[-1] for name, array in answer.items() if name == "contributions"}
    assert set(widths.values()) <= {len(script["sources"]) + 1}


def test_a_probability_is_shown_from_0_to_1_among_the_references(bundles: dict[str, Bundle]) -> None:
    drawn = shown(bundles["binary"], "transformer").drawn

    assert drawn is not None
    assert (drawn.axis.low, drawn.axis.high) == (0.0, 1.0)
    assert sum(column.rows for column in drawn.columns) == 700
    assert [(band.label, band.left) for band in drawn.bands] == [
        ("go", drawn.axis(0.0)),
        ("look", drawn.axis(0.2)),
        ("stop", drawn.axis(0.9)),
    ]
    assert [value for _, value in drawn.ticks] == [0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0]


@pytest.mark.parametrize("service", ["transformer", "predictor"])
def test_a_regression_is_shown_among_the_references_values(bundles: dict[str, Bundle], service: str) -> None:
    bundle = bundles["regression"]
    found = shown(bundle, service)
    values: Array = bundle.reference.outputs["predict"]

    assert found.drawn is not None
    assert found.drawn.axis.low < np.quantile(values, 0.01) < np.quantile(values, 0.99) < found.drawn.axis.high
    assert sum(column.rows for column in found.drawn.columns) == len(values)
    np.testing.assert_allclose(found.script["quantiles"], np.quantile(values, np.linspace(0, 1, 101)), rtol=1e-6)
    assert (list(found.bands), found.scored) == ([], "predicted value")


@pytest.mark.parametrize("service", ["transformer", "predictor"])
def test_an_anomalys_score_has_the_detectors_own_bands(bundles: dict[str, Bundle], service: str) -> None:
    found = shown(bundles["anomaly"], service)

    assert [(band.label, band.low, band.high) for band in found.bands] == [
        ("normal", None, 0.0),
        ("anomaly", 0.0, None),
    ]
    assert found.drawn is not None
    assert 0.0 in [value for _, value in found.drawn.ticks]


def test_several_classes_have_no_scale_but_their_probabilities(bundles: dict[str, Bundle]) -> None:
    found = shown(bundles["multiclass"], "transformer")

    assert (found.drawn, found.script["axis"]) == (None, None)
    assert "predict_proba" in found.script["outputs"]
    assert 'id="scale-title"' not in page(found).html


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("TEXT/HTML", True),
        ("application/json;q=0.5, text/html ; q=0.5", True),
        ("application/json, text/html;q=0.5", False),
        ("text/html;q=0", False),
        ("*/*", False),
        ("application/json, text/plain, */*", False),
        ("", False),
        ("text/html;q=lots", True),
    ],
)
def test_a_browser_is_who_asks_for_html_before_json(accept: str, html: bool) -> None:
    assert wants_html(accept.encode()) == html


@pytest.fixture(scope="module")
def service(bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """A predictor with a page, behind the real server."""
    options = (
        f"--model_dir={bundles['binary'].path}",
        "--page=true",
        "--threads=1",
        "--cors_origins=https://a.example",
    )
    with running("tabserve_predictor", *options, log=tmp_path_factory.mktemp("page") / "log") as service:
        yield service


def asked(service: Service, method: str, path: str, accept: str = "text/html", body: str | None = None) -> Answer:
    return Target(service.url, None, None, None).http(method, path, body, {"Accept": accept})


def test_a_browser_gets_the_page_and_others_what_they_got_before(service: Service) -> None:
    answer, other = asked(service, "GET", "/"), asked(service, "GET", "/", "*/*")
    head = asked(service, "HEAD", "/")

    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b'<h1>m <span class="version">version 1<' in answer.body
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; ")
    assert [answer.headers[name] for name in ("x-content-type-options", "referrer-policy")] == [
        "nosniff",
        "no-referrer",
    ]
    assert answer.headers.get_all("vary") == ["accept", "origin"]
    assert answer.headers["access-control-allow-origin"] is None
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(answer.body)), b"")
    assert (other.status, other.json()) == (200, {"status": "alive"})
    assert asked(service, "GET", "/v2").json()["name"] == "tabserve"


@pytest.mark.parametrize("path", ["/", "/page/figures"])
def test_nothing_can_be_written_there(service: Service, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = asked(service, method, path, body="{}")
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_figures_count_what_was_answered_and_not_the_page(service: Service) -> None:
    before = asked(service, "GET", "/page/figures").json()
    asked(service, "POST", "/v1/models/m:predict", body='{"instances": [[1, 2]]}')
    asked(service, "POST", "/v1/models/m:predict", body='{"instances": [[1]]}')
    asked(service, "GET", "/")
    answer = asked(service, "GET", "/page/figures")
    after = answer.json()

    assert before == {"requests": 0, "refused": 0, "failed": 0, "p50_ms": None, "p99_ms": None}
    assert {name: after[name] for name in ("requests", "refused", "failed")} == {
        "requests": 2,
        "refused": 1,
        "failed": 0,
    }
    assert 0 < after["p50_ms"] <= after["p99_ms"]
    assert answer.headers["cache-control"] == "no-store"
    assert "m:predict" not in service.text()


def test_without_the_setting_there_is_neither(echo: Service) -> None:
    assert asked(echo, "GET", "/").json() == {"status": "alive"}
    assert asked(echo, "GET", "/page/figures").status == 404


def test_a_quantile_is_straight_between_the_bounds_of_its_bucket() -> None:
    seconds = Histogram("s", "", (1, 2, 4), ("of",))
    assert seconds.quantile(0.5) is None

    for value, of in [(0.5, "a"), (1.5, "a"), (1.6, "b"), (3.0, "b")]:
        seconds.observe(value, of)
    assert [seconds.quantile(share) for share in (0.25, 0.5, 0.75, 1.0)] == [1, 1.5, 2, 4]
    seconds.observe(9.0, "a")
    assert seconds.quantile(1.0) == 4
    assert Histogram("s", "", SECONDS).quantile(0.99) is None


def test_hooks_have_no_page() -> None:
    with pytest.raises(click.UsageError, match="page: expected no model_class"):
        read(ServerSettings, {"page": "true", "model_class": "own:Class"}, {})
    assert read(ServerSettings, {}, {"TABSERVE_PAGE": "true"}).page
    assert not read(ServerSettings, {}, {}).page
