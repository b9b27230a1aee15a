"""What the chart renders for a gate: nothing unless asked, a pod with few rights, and settings that the gate reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tabserve.rollout.settings import SOURCE, Settings, parse
from tests.chart.helm import CI, HELMS, Values, one, program, rendered

GATED: dict[str, Any] = yaml.safe_load(CI["rollout"].read_text())
KINDS = {"Job", "Role", "RoleBinding", "ServiceAccount"}


@pytest.fixture(scope="module", params=HELMS)
def helm(request: pytest.FixtureRequest) -> Path:
    return program(HELMS[request.param])


def named(objects: list[dict[str, Any]], kind: str, name: str = "fraud-rollout") -> dict[str, Any]:
    """The only object of a kind with this name."""
    (found,) = (item for item in objects if item["kind"] == kind and item["metadata"]["name"] == name)
    return found


def with_rollout(**values: Any) -> dict[str, Any]:
    """Values with a gate, some of whose own are others."""
    return GATED | {"rollout": GATED["rollout"] | values}


def told(values: Values, helm: Path) -> Settings:
    """What the gate of these values is told."""
    pod = one(rendered(values, helm), "Job")["spec"]["template"]["spec"]
    variables = {each["name"]: each.get("value", "") for each in pod["containers"][0]["env"]}
    return parse(variables[SOURCE], "job")


def job(values: Values, helm: Path) -> str:
    return str(one(rendered(values, helm), "Job")["metadata"]["name"])


@pytest.mark.parametrize("values", [{}, with_rollout(enabled=False)])
def test_there_is_nothing_of_a_gate_without_being_asked_for(helm: Path, values: dict[str, Any]) -> None:
    names = {(item["kind"], item["metadata"]["name"]) for item in rendered(values, helm)}
    assert {(kind, "fraud-rollout") for kind in KINDS} & names == set()
    assert "Job" not in dict(names)


def test_its_service_and_its_rights_stay_between_rollouts_so_that_it_ends_in_order(helm: Path) -> None:
    objects = rendered({"rollout": {"enabled": True}}, helm)
    service = named(objects, "Service")
    assert KINDS & {item["kind"] for item in objects} == KINDS - {"Job"}
    assert named(objects, "Role")["rules"] == named(rendered(GATED, helm), "Role")["rules"]

    assert service["spec"] == named(rendered(GATED, helm), "Service")["spec"]
    assert service["spec"]["selector"] == {"tabserve/gate": "fraud"}


def test_its_rights_are_few_and_in_its_namespace(helm: Path) -> None:
    objects = rendered(GATED, helm)
    found = {
        (group, resource, verb, *rule.get("resourceNames", []))
        for rule in named(objects, "Role")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    routes, own = ("gateway.networking.k8s.io", "httproutes"), "fraud-rollout"

    assert found == {
        *((*routes, verb) for verb in ("get", "list", "create")),
        *((*routes, verb, own) for verb in ("patch", "delete")),
        *(("", "pods", verb) for verb in ("get", "list")),
        *(("", resource, "create") for resource in ("events", "configmaps")),
        *(("", "configmaps", verb, own) for verb in ("get", "patch")),
    }
    (subject,) = named(objects, "RoleBinding")["subjects"]
    pod = one(objects, "Job")["spec"]["template"]["spec"]
    assert subject["name"] == pod["serviceAccountName"] == named(objects, "ServiceAccount")["metadata"]["name"]
    assert {item["kind"] for item in objects} & {"ClusterRole", "ClusterRoleBinding"} == set()


def test_its_pod_is_restricted(helm: Path) -> None:
    pod = one(rendered(GATED, helm), "Job")["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["restartPolicy"] == "OnFailure"
    assert {each["tolerationSeconds"] for each in pod["tolerations"]} == {30}


def test_it_is_told_both_releases_and_the_values(helm: Path) -> None:
    found = told(GATED, helm)

    assert (found.stable.slot, found.canary.slot, found.canary.digest[:15]) == ("a", "b", "sha256:89abcdef")
    assert found.canary.images == {"predictor": "tabserve-predictor:0.2.0", "transformer": "tabserve-transformer:0.2.0"}
    assert (found.service(found.canary), found.owned) == ("fraud-b-transformer", "fraud-rollout")
    assert (found.course.steps, found.course.max_duration) == ([5, 20, 50], "90m")
    assert found.course.rules().scores is None
    assert found.course.rules().decisions == 1.25


def test_a_model_without_a_transformer_has_a_gate_too(helm: Path) -> None:
    values = GATED | {"transformer": {"placement": "none"}}
    found = told(values, helm)

    assert (found.entry, found.workloads) == ("predictor", ["predictor"])
    image = one(rendered(values, helm), "Job")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "tabserve-predictor:0.2.0"


def test_its_job_is_another_for_another_release_or_other_values(helm: Path) -> None:
    releases = GATED["releases"]
    resources = {"predictor": {"resources": {"limits": {"memory": "2Gi"}}}}
    other = {"releases": releases | {"b": releases["b"] | {"predictor": {"settings": {"max_batch_rows": 64}}}}}
    names = [job(values, helm) for values in (GATED, GATED | resources, with_rollout(steps=[5]), GATED | other)]

    assert names[0] == names[1]
    assert len({*names}) == 3


@pytest.mark.parametrize(("given", "seconds"), [("90m", 6000), ("24h", 87000), ("30s", 630)])
def test_its_job_ends_some_minutes_after_its_longest_duration(helm: Path, given: str, seconds: int) -> None:
    spec = one(rendered(with_rollout(maxDuration=given), helm), "Job")["spec"]
    held = one(rendered(with_rollout(whenUndecided="hold"), helm), "Job")["spec"]

    assert spec["activeDeadlineSeconds"] == seconds
    assert "activeDeadlineSeconds" not in held


def test_network_policies_let_it_ask_and_look(helm: Path) -> None:
    objects = rendered(GATED, helm)
    gate = {"podSelector": {"matchLabels": {"tabserve/gate": "fraud"}}}
    policies = {
        item["metadata"]["name"]: item["spec"]["ingress"] for item in objects if item["kind"] == "NetworkPolicy"
    }

    assert [gate in rule["from"] for rule in policies["fraud-b-transformer"]] == [True, True]
    assert [gate in rule["from"] for rule in policies["fraud-b-predictor"]] == [False, True]
    assert [rule["ports"] for rule in policies["fraud-rollout"]] == [[{"port": 8080}], [{"port": 8082}]]
