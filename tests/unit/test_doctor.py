"""`tabserve doctor` on clusters that have everything, have nothing, or forbid looking."""

from __future__ import annotations

from typing import Any

import pytest

from tabserve.doctor.api import Absent, Forbidden, Get
from tabserve.doctor.cluster import examine, modes


def resources(*names: str) -> dict[str, Any]:
    return {"resources": [{"name": name} for name in names]}


def kserve_image(tag: str) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"name": "manager", "image": f"kserve/controller:{tag}"}]}}}}


def storage(**security: Any) -> dict[str, Any]:
    item = {"metadata": {"name": "default"}, "spec": {"container": {"securityContext": security}}}
    return {"items": [item]}


RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}
FLAGS = (
    "multi-container-probing",
    "kubernetes.podspec-securitycontext",
    "kubernetes.podspec-topologyspreadconstraints",
)
GATEWAYS = {"items": [{"metadata": {"namespace": "infra", "name": "public"}}]}
CONTROLLER = "/apis/apps/v1/namespaces/kserve/deployments/kserve-controller-manager"
STORAGE = "/apis/serving.kserve.io/v1alpha1/clusterstoragecontainers"
CONFIG = "/api/v1/namespaces/knative-serving/configmaps/config-features"
FULL: dict[str, dict[str, Any]] = {
    "/version": {"major": "1", "minor": "35+", "gitVersion": "v1.35.4"},
    "/apis/serving.kserve.io/v1beta1": resources("inferenceservices"),
    "/apis/serving.kserve.io/v1alpha1": resources("servingruntimes", "clusterstoragecontainers"),
    CONTROLLER: kserve_image("v0.20.0"),
    STORAGE: storage(**RESTRICTED),
    "/apis/gateway.networking.k8s.io/v1": resources("httproutes", "gateways"),
    "/apis/gateway.networking.k8s.io/v1/gateways": GATEWAYS,
    "/apis/serving.knative.dev/v1": resources("services"),
    CONFIG: {"data": dict.fromkeys(FLAGS, "enabled")},
    "/apis/metrics.k8s.io/v1beta1": resources("pods"),
    "/apis/monitoring.coreos.com/v1": resources("podmonitors"),
}


def answering(answers: dict[str, dict[str, Any]]) -> Get:
    """A cluster that answers these paths."""

    def get(path: str) -> dict[str, Any]:
        if path not in answers:
            raise Absent(path)
        return answers[path]

    return get


def test_a_full_cluster_runs_both_modes_and_lacks_nothing() -> None:
    findings = examine(answering(FULL))

    assert [finding for finding in findings if finding.state != "ok"] == []
    assert modes(findings) == {"Standard": True, "Knative": True}


def test_a_bare_cluster_runs_none_and_has_a_remedy_for_each() -> None:
    findings = examine(answering({"/version": FULL["/version"]}))

    assert modes(findings) == {"Standard": False, "Knative": False}
    assert [finding.what for finding in findings if finding.state == "missing" and not finding.remedy] == []


@pytest.mark.parametrize(
    ("changes", "lacking", "can"),
    [
        ({"/version": {"major": "1", "minor": "31", "gitVersion": "v1.31.0"}}, "Kubernetes", (False, False)),
        ({CONTROLLER: kserve_image("v0.15.2")}, "KServe's version", (False, False)),
        ({"/apis/gateway.networking.k8s.io/v1/gateways": {"items": []}}, "Gateway API", (False, True)),
        ({"/apis/serving.knative.dev/v1": resources()}, "Knative", (True, False)),
        ({CONFIG: {"data": {}}}, "Knative's flags", (True, True)),
        ({"/apis/metrics.k8s.io/v1beta1": resources()}, "Metrics API", (True, True)),
        ({STORAGE: storage()}, "Storage initializer", (True, True)),
    ],
)
def test_what_is_missing_is_named(changes: dict[str, dict[str, Any]], lacking: str, can: tuple[bool, bool]) -> None:
    findings = examine(answering(FULL | changes))

    assert [finding.what for finding in findings if finding.state == "missing"] == [lacking]
    assert tuple(modes(findings).values()) == can


def test_what_may_not_be_read_is_unknown_and_said() -> None:
    def get(path: str) -> dict[str, Any]:
        if "namespaces" in path:
            raise Forbidden(path)
        return answering(FULL)(path)

    unknown = [finding for finding in examine(get) if finding.state == "unknown"]

    assert [finding.what for finding in unknown] == ["KServe's version", "Knative's flags"]
    assert all("not allowed to read" in finding.detail for finding in unknown)
