"""What `tabserve rollout status` says of two releases whose services run: their own counts, by their own pages."""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import xgboost
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from tabserve import train
from tabserve.cli import main
from tabserve.rollout.scrape import COUNTED
from tests.serving import ROOT, Service, free_port, running

SCHEMA = """\
task: binary
record: [{name: amount, type: number, min: 0, max: MOST}]
features: [amount]
outputs:
  classes: [accept, fraud]
  decision: {score: fraud, bands: [{from: 0.5, label: review}, {from: 0, label: accept}]}
"""
REQUESTS = 200
PREDICT = "/v1/models/fraud:predict"


class Slot(NamedTuple):
    """A release's two services."""

    predictor: Service
    transformer: Service


@contextmanager
def slot(folder: Path, *, most: int, from_: float) -> Generator[Slot]:
    """Services of a model that flags amounts over `from_`, and takes none over `most`."""
    folder.mkdir()
    (folder / "schema.yaml").write_text(SCHEMA.replace("MOST", str(most)))
    records = pd.DataFrame({"amount": np.arange(0, most + 1, most // 350, dtype=np.float64)})
    model = xgboost.XGBClassifier(n_estimators=5, max_depth=2, n_jobs=1, tree_method="exact")
    model.fit(records, records["amount"] > from_)
    bundle = train.save(
        model, folder / "bundle", name="fraud", version="1", schema=folder / "schema.yaml", sample=records
    )
    options, port = f"--model_dir={bundle.path}", free_port()
    with (
        running("tabserve_predictor", options, log=folder / "predictor.log", http_port=port) as predictor,
        running(
            "tabserve_transformer", options, f"--predictor_host=127.0.0.1:{port}", log=folder / "transformer.log"
        ) as transformer,
    ):
        yield Slot(predictor, transformer)


@pytest.fixture(scope="module")
def slots(tmp_path_factory: pytest.TempPathFactory) -> Generator[dict[str, Slot]]:
    """Stable, and a canary whose schema refuses amounts over 350 and whose model flags more of the others."""
    folder = tmp_path_factory.mktemp("slots")
    with ExitStack() as stack:
        yield {
            "stable": stack.enter_context(slot(folder / "stable", most=700, from_=300)),
            "canary": stack.enter_context(slot(folder / "canary", most=350, from_=100)),
        }


def ask(service: Service, amounts: Any, headers: dict[str, str] | None = None) -> None:
    """Send one request for each of these amounts."""
    connection = HTTPConnection("127.0.0.1", service.http_port, timeout=30)
    for amount in amounts:
        connection.request("POST", PREDICT, json.dumps({"instances": [{"amount": amount}]}), headers or {})
        connection.getresponse().read()
    connection.close()


def metrics(service: Service) -> str:
    return f"http://127.0.0.1:{service.admin_port}/metrics"


def judged(slots: dict[str, Slot], state: Path, *, entry: str = "transformer") -> dict[str, Any]:
    """What `status` says of what came since its last look."""
    sources = [f"--{name}={metrics(getattr(slots[name], entry))}" for name in ("stable", "canary")]
    done = CliRunner().invoke(main, ["rollout", "status", *sources, f"--state={state}", "--json"])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"checks": {row["check"]: row for row in found["checks"]}}


def test_what_two_releases_do_is_told_from_their_own_counts(slots: dict[str, Slot], tmp_path: Path) -> None:
    states = {entry: tmp_path / f"{entry}.json" for entry in ("transformer", "predictor")}
    for entry, state in states.items():
        before = judged(slots, state, entry=entry)
        assert before["reason"] == "Not yet: one of the slots has answered no request of the split."
    amounts = list(range(0, 2 * REQUESTS, 2))
    for name in ("stable", "canary"):
        ask(slots[name].transformer, amounts)
    for way in ({"tabserve-arm": "forced"}, {"tabserve-shadow": "1"}):
        ask(slots["canary"].transformer, [999] * 20, way)

    found = judged(slots, states["transformer"])
    checks = found["checks"]
    refused = sum(amount > 350 for amount in amounts)
    assert found["verdict"] == "back"
    assert checks["errors"]["canary"] == checks["errors"]["stable"] == f"0 of {REQUESTS} (0.00%)"
    assert checks["refused"]["canary"].startswith(f"{refused} of {REQUESTS} ")
    assert checks["refused"]["stable"] == f"0 of {REQUESTS} (0.00%)"
    decisions = checks["decisions"]
    assert decisions["canary"] == accepted(amounts, 100, 350)[decisions["event"]]
    assert decisions["stable"] == accepted(amounts, 300, 400)[decisions["event"]]
    assert decisions["log"] > np.log(decisions["needed"])
    classes = judged(slots, states["predictor"], entry="predictor")["checks"]["decisions"]
    assert classes["canary"] == accepted(amounts, 100, 350)[classes["event"]]

    again = judged(slots, states["transformer"])
    assert again["checks"] == checks


def accepted(amounts: list[int], over: float, most: float) -> dict[str, str]:
    """How many amounts up to `most` are decided how, if those over `over` are flagged."""
    taken = [amount for amount in amounts if amount <= most]
    good, all_of = sum(amount <= over for amount in taken), len(taken)
    flagged = f"{all_of - good} of {all_of} ({(all_of - good) / all_of:.2%})"
    return {"`accept`": f"{good} of {all_of} ({good / all_of:.2%})", "`review`": flagged, "`fraud`": flagged}


def test_the_page_lists_the_metrics_that_are_judged_with_their_labels(slots: dict[str, Slot]) -> None:
    ask(slots["stable"].transformer, [1, 399])
    pages = [service.metrics() for service in slots["stable"]]
    samples = [
        (sample.name.removesuffix("_bucket"), {*sample.labels} - {"le"})
        for page in pages
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name in COUNTED
    ]
    rows = re.findall(r"^\| `(tabserve_\w+)` \| (.*?) \|", (ROOT / "docs" / "rollout.md").read_text(), re.MULTILINE)

    assert dict(samples) == {name: {label.strip("`") for label in labels.split(", ")} for name, labels in rows}
