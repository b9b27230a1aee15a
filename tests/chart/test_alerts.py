"""The chart's alerts: what Prometheus says of them, when they fire, and that each leads to what to do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tabserve.inference import errors
from tabserve.inference.metrics import SECONDS
from tests.chart.helm import CHART, CI, one, program, rendered
from tests.chart.metrics import PAGE, documented, named
from tests.cluster.testbed.build import PROMETHEUS

CASES = Path(__file__).parent / "alerts.yaml"
Rule = dict[str, Any]


@pytest.fixture(scope="module")
def promtool() -> Path:
    """Prometheus' tool, unpacked from Debian's package if it is not in the cache."""
    PROMETHEUS.make()
    return PROMETHEUS.folder / "usr" / "bin" / "promtool"


def spec(values: dict[str, Any]) -> dict[str, Any]:
    """The groups of rules, as Prometheus reads them from a file."""
    found: dict[str, Any] = one(rendered({"alerts": {"enabled": True}} | values, program()), "PrometheusRule")["spec"]
    return found


def rules(values: dict[str, Any]) -> list[Rule]:
    """All alerts."""
    return [rule for group in spec(values)["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def everything() -> dict[str, Any]:
    """Values with all alerts."""
    found: dict[str, Any] = yaml.safe_load(CI["everything"].read_text())
    return found | {"rollout": {"enabled": True}, "traffic": {"canary": "b", "canaryPercent": 0}, "tls": {}}


TOPOLOGIES: dict[str, dict[str, Any]] = {
    "the least": {},
    "collocated": {"transformer": {"placement": "collocated"}},
    "without a transformer": {"transformer": {"placement": "none"}},
    "in Knative mode": {"mode": "Knative", "transformer": {"placement": "collocated"}},
    "with a long log": {"decisionLog": {"to": "s3://lake/log", "fileSeconds": 0.5}},
}


def test_each_alert_fires_and_does_not_where_it_must_not(promtool: Path, everything: Rule, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec(everything)))
    (tmp_path / "cases.yaml").write_text(CASES.read_text())

    done = subprocess.run([promtool, "test", "rules", "cases.yaml"], cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(everything: Rule) -> None:
    cases = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["alert_rule_test"]]
    firing = {
        case["alertname"]: [each["exp_labels"] for each in case["exp_alerts"]] for case in cases if case["exp_alerts"]
    }
    known = names(everything)

    assert {*firing} == known
    # several pods or features in one case, of which not all are alarmed on, are both at once
    one_of_several = {name for name in known if {"pod", "what"} & {*firing[name][0]}}
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} | one_of_several == known


@pytest.mark.parametrize("values", TOPOLOGIES.values(), ids=TOPOLOGIES)
def test_prometheus_reads_the_rules(promtool: Path, values: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec(values)))

    done = subprocess.run([promtool, "check", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def names(values: dict[str, Any]) -> set[str]:
    """The names of all alerts."""
    return {rule["alert"] for rule in rules(values)}


def test_there_are_alerts_for_what_there_is() -> None:
    of_log = {"TabserveDecisionsNotLogged", "TabserveDecisionLogStuck"}
    sleeping = {"mode": "Knative", "transformer": {"placement": "collocated"}, "knative": {"minReplicas": 0}}

    log = {"decisionLog": {"to": "s3://lake/log"}}
    monitor = {"enabled": True}

    assert names(log) - names({}) == of_log
    assert names(log | {"monitor": monitor}) - names(log) == {"TabserveMonitorStale"}
    pushed = monitor | {"pushgateway": "http://pushgateway:9091"}
    assert names(log | {"monitor": pushed}) - names(log) == {"TabserveMonitorStale", "TabserveMonitorAlarm"}
    assert names({}) - names({"transformer": {"placement": "none"}}) == {"TabservePredictorLost"}
    assert names({}) - names(sleeping) == {"TabserveNotMeasured"}


@pytest.mark.parametrize(
    ("values", "entry"),
    [
        ({}, 'pod=~"fraud-[ab]-transformer-.+",arm!="shadow"'),
        (TOPOLOGIES["collocated"], 'pod=~"fraud-[ab]-predictor-.+",container!="kserve-container",arm!="shadow"'),
        (TOPOLOGIES["without a transformer"], 'pod=~"fraud-[ab]-predictor-.+",arm!="shadow"'),
        (TOPOLOGIES["in Knative mode"], 'pod=~"fraud-predictor-.+",container!="kserve-container",arm!="shadow"'),
    ],
)
def test_budgets_are_of_what_clients_see(values: dict[str, Any], entry: str) -> None:
    budgets = [rule["expr"] for rule in rules(values) if "Budget" in rule["alert"]]

    assert len(budgets) == 4
    assert all(f'{{namespace="models",{entry}' in expression for expression in budgets)


def test_each_alert_leads_to_its_heading_in_the_runbook(everything: Rule) -> None:
    for rule in rules(everything):
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page.endswith("/docs/operations.md")
        assert f"\n### {rule['alert']}\n" in PAGE
        assert anchor == rule["alert"].lower()


def test_each_alert_is_of_metrics_that_the_page_explains(everything: Rule) -> None:
    for rule in rules(everything):
        assert named(rule["expr"])
        assert named(rule["expr"]) <= documented()


def test_an_objective_for_latency_is_a_bound_of_the_histogram() -> None:
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())

    assert {*schema["properties"]["alerts"]["properties"]["latency"]["properties"]["seconds"]["enum"]} <= {*SECONDS}


def test_what_counts_as_an_error_is_the_services_fault_and_no_client_s() -> None:
    (matcher,) = {re.search(r'status=~"([^"]+)"', rule["expr"])[1] for rule in rules({}) if "Error" in rule["alert"]}  # type: ignore[index]
    kinds = [
        each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.InferenceError)
    ]
    assert len(kinds) > 8
    for kind in kinds:
        ours = kind.http_status >= 500
        assert bool(re.fullmatch(matcher, str(kind.http_status))) == ours
        assert bool(re.fullmatch(matcher, kind.grpc_status)) == ours
