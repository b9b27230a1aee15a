"""Plain InferenceServices work in both modes: they answer, they scale, and their traffic splits by weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binom

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tests.cluster import load, plain
from tests.cluster.plain import NAMESPACE
from tests.cluster.testbed import api
from tests.cluster.testbed.places import KNATIVE_PORT, STANDARD_PORT

pytestmark = pytest.mark.cluster

REQUESTS = 300
CANARY_PERCENT = 20


@pytest.fixture(scope="module")
def record(bundle: Path) -> dict[str, Any]:
    """A record that the bundle can decide on, after publishing the bundle."""
    plain.publish(bundle)
    return expected.record(bundles.load(bundle), 0)


@pytest.fixture(scope="module")
def standard(cluster: api.Cluster, record: dict[str, Any]) -> Generator[str]:
    """The host of predictor and transformer in Standard mode; the predictor's HPA may make it two pods."""
    scaling: dict[str, Any] = {"minReplicas": 1, "maxReplicas": 2, "scaleMetric": "cpu", "scaleTarget": 20}
    parts = {"predictor": plain.from_s3("predictor", **scaling), "transformer": plain.from_s3("transformer")}
    with plain.serving(cluster, plain.service("smoke-standard", "Standard", **parts)) as (host,):
        yield host


@pytest.fixture(scope="module")
def knative(cluster: api.Cluster, record: dict[str, Any]) -> Generator[str]:
    """The host of predictor and transformer in Knative mode; the predictor's KPA may make it two pods."""
    scaling: dict[str, Any] = {"minReplicas": 1, "maxReplicas": 2, "scaleMetric": "concurrency", "scaleTarget": 1}
    parts = {"predictor": plain.from_volume("predictor", **scaling), "transformer": plain.from_volume("transformer")}
    with plain.serving(cluster, plain.service("smoke-knative", "Knative", **parts)) as (host,):
        yield host


def decided(port: int, host: str, record: dict[str, Any]) -> list[str]:
    """The decision in the answer to a V2 request."""
    status, body, _ = plain.infer(port, host, plain.columns(record))
    assert status == 200, body
    outputs: dict[str, list[str]] = {output["name"]: output["data"] for output in body["outputs"]}
    return outputs["decision"]


def test_standard_mode_answers_v2(standard: str, bundle: Path, record: dict[str, Any]) -> None:
    assert decided(STANDARD_PORT, standard, record) == [expected.decision(bundles.load(bundle), 0)["decision"]]


def test_knative_mode_answers_v2(knative: str, bundle: Path, record: dict[str, Any]) -> None:
    assert decided(KNATIVE_PORT, knative, record) == [expected.decision(bundles.load(bundle), 0)["decision"]]


def ready_pods(cluster: api.Cluster, **labels: str) -> int:
    """How many pods with these labels are ready."""
    return sum(not api.condition(pod, "Ready") for pod in cluster.find("v1", "Pod", NAMESPACE, **labels))


def wait_for_two(cluster: api.Cluster, **labels: str) -> None:
    """Wait until two pods with these labels are ready."""

    def lacking() -> str:
        found = ready_pods(cluster, **labels)
        return "" if found == 2 else f"expected 2 ready pods, found {found}"

    api.wait(f"a second pod of {labels}", lacking, 150, lambda: cluster.explain(NAMESPACE))


def test_hpa_adds_a_pod_under_load(cluster: api.Cluster, standard: str, record: dict[str, Any]) -> None:
    target = load.Target(f"127.0.0.1:{STANDARD_PORT}", standard, plain.MODEL, record)
    with load.constant(target, rest=2, per_second=60) as seen:
        wait_for_two(cluster, app="isvc.smoke-standard-predictor")

    assert seen.failures() == []


def test_kpa_adds_a_pod_under_load(cluster: api.Cluster, knative: str, record: dict[str, Any]) -> None:
    target = load.Target(f"127.0.0.1:{KNATIVE_PORT}", knative, plain.MODEL, record)
    with load.constant(target, rest=8, per_second=60) as seen:
        wait_for_two(cluster, **{"serving.knative.dev/service": "smoke-knative-predictor"})

    assert seen.failures() == []


def answered_by(port: int, host: str, body: dict[str, Any]) -> Counter[str]:
    """How many of REQUESTS each release's predictor answered, by the header that it sets."""
    answers = [plain.infer(port, host, body) for _ in range(REQUESTS)]
    assert {status for status, _, _ in answers} == {200}
    return Counter(headers["tabserve-predictor-release"] for _, _, headers in answers)


def assert_split(found: Counter[str]) -> None:
    """Assert that chance allows the canary's share for its percentage, in 999 of 1,000 runs."""
    least, most = binom.interval(0.999, REQUESTS, CANARY_PERCENT / 100)
    assert set(found) == {"stable", "canary"}
    assert least <= found["canary"] <= most, found


def test_httproute_weights_split_the_traffic(cluster: api.Cluster, record: dict[str, Any]) -> None:
    releases = ["stable", "canary"]
    predictors = {name: plain.from_volume("predictor", name) for name in releases}
    both = [plain.service(f"smoke-{name}", "Standard", predictor=part) for name, part in predictors.items()]
    weights = {"stable": 100 - CANARY_PERCENT, "canary": CANARY_PERCENT}
    backends = [{"name": f"smoke-{name}-predictor", "port": 80, "weight": weights[name]} for name in releases]
    split_host = "smoke-split.example.com"
    route: api.Object = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "smoke-split", "namespace": NAMESPACE},
        "spec": {
            "parentRefs": [{"name": "kserve-ingress-gateway", "namespace": "kserve"}],
            "hostnames": [split_host],
            "rules": [{"backendRefs": backends}],
        },
    }
    body = plain.columns(record)
    with plain.serving(cluster, *both):
        try:
            cluster.apply(route)
            wait_for_answer(STANDARD_PORT, split_host, body)
            found = answered_by(STANDARD_PORT, split_host, body)
        finally:
            cluster.delete(route["apiVersion"], "HTTPRoute", "smoke-split", NAMESPACE)

    assert_split(found)


def test_canary_traffic_percent_splits_the_traffic(cluster: api.Cluster, record: dict[str, Any]) -> None:
    stable = plain.service("smoke-canary", "Knative", predictor=plain.from_volume("predictor", "stable", minReplicas=1))
    canary = plain.from_volume("predictor", "canary", minReplicas=1, canaryTrafficPercent=CANARY_PERCENT)
    body = plain.columns(record)
    with plain.serving(cluster, stable) as (host,):
        cluster.apply(plain.service("smoke-canary", "Knative", predictor=canary))
        plain.wait_ready(cluster, "smoke-canary")
        wait_for_release(KNATIVE_PORT, host, body, "canary")
        found = answered_by(KNATIVE_PORT, host, body)

    assert_split(found)


def wait_for_answer(port: int, host: str, body: dict[str, Any]) -> None:
    """Wait until a gateway uses a new route."""

    def lacking() -> str:
        status, _, _ = plain.infer(port, host, body)
        return "" if status == 200 else f"status {status}"

    api.wait(f"an answer of {host}", lacking, 60, lambda: "")


def wait_for_release(port: int, host: str, body: dict[str, Any], release: str) -> None:
    """Wait until a release has answered once, so that the gateway knows it."""

    def lacking() -> str:
        _, _, headers = plain.infer(port, host, body)
        seen = headers.get("tabserve-predictor-release")
        return "" if seen == release else f"answered by {seen}"

    api.wait(f"an answer of {release}", lacking, 60, lambda: "", every=0.05)
