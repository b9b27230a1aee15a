"""The chart's dashboard: written by its program, of metrics that the page explains, for one release."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts import dashboard
from tests.chart.helm import program, rendered
from tests.chart.metrics import documented, named
from tests.cluster.testbed.build import PROMETHEUS

ENABLED: dict[str, Any] = {"dashboard": {"enabled": True}}
WRITTEN: dict[str, Any] = json.loads(dashboard.FILE.read_text())
QUERIES = {panel["title"]: [target["expr"] for target in panel.get("targets", [])] for panel in WRITTEN["panels"]}


def selectors(made: dict[str, Any]) -> dict[str, str]:
    """What the variables of a dashboard select."""
    return {each["name"]: each["query"] for each in made["templating"]["list"]}


def test_it_is_what_its_program_writes() -> None:
    assert dashboard.FILE.read_text() == dashboard.built(), "run `make chart-docs`"


def test_each_graph_is_of_metrics_that_the_page_explains() -> None:
    graphs = {title: queries for title, queries in QUERIES.items() if queries}

    assert len(graphs) > 15
    for title, queries in graphs.items():
        assert all(named(query) for query in queries), title
        assert {name for query in queries for name in named(query)} <= documented(), title


def test_prometheus_reads_each_query(tmp_path: Path) -> None:
    PROMETHEUS.make()
    queries = [filled(query) for listed in QUERIES.values() for query in listed]
    rules = [{"record": f"query:{at}", "expr": query} for at, query in enumerate(queries)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    promtool = PROMETHEUS.folder / "usr" / "bin" / "promtool"

    done = subprocess.run([promtool, "check", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def filled(query: str, variables: dict[str, str] = dashboard.VARIABLES, over: str = "1m") -> str:
    """A query as Grafana asks it. over: the range of rates."""
    named_in = re.sub(r"\$\{(\w+):raw\}", lambda found: variables[found[1]], query)
    return named_in.replace("$__rate_interval", over)


def made_with(values: dict[str, Any]) -> dict[str, Any]:
    """The ConfigMap with the dashboard."""
    objects = rendered(values, program())
    (found,) = (each for each in objects if each["metadata"]["name"].endswith("-dashboard"))
    return found


def test_the_chart_sets_what_it_is_of() -> None:
    values = {"annotations": {"grafana_folder": "models"}, "labels": {"team": "risk"}} | ENABLED["dashboard"]
    found = made_with({"dashboard": values})
    ((name, text),) = found["data"].items()
    made = json.loads(text)
    other = json.loads(made_with(ENABLED | {"fullnameOverride": "other"})["data"]["other.json"])

    assert name == "fraud.json"
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["metadata"]["labels"]["team"] == "risk"
    assert found["metadata"]["annotations"] == {"grafana_folder": "models"}
    assert made["title"] == "tabserve fraud (models)"
    assert len(made["uid"]) <= 40
    assert made["uid"] != other["uid"]
    assert selectors(made) == {
        "datasource": "prometheus",
        "all": 'namespace="models",pod=~"fraud-[ab]-(predictor|transformer)-.+"',
        "entry": 'namespace="models",pod=~"fraud-[ab]-transformer-.+",arm!="shadow"',
        "gate": 'namespace="models",pod=~"fraud-rollout-.+"',
        "monitor": 'namespace="models",release="fraud"',
    }
    assert {**made, "title": "", "uid": "", "templating": {}} == {**WRITTEN, "title": "", "uid": "", "templating": {}}


@pytest.mark.parametrize("values", [{}, {"dashboard": {"enabled": False}}])
def test_there_is_none_unless_it_is_asked_for(values: dict[str, Any]) -> None:
    assert "fraud-dashboard" not in {item["metadata"]["name"] for item in rendered(values, program())}
