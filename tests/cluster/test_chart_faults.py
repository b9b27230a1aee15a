"""What goes wrong in a cluster: evictions, throttled pods, predictors that are gone, an API server that is away."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tabserve import bundle as bundles
from tabserve import expected
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, connect, merged, released
from tests.cluster.load import Target, constant
from tests.cluster.shares import wait_for
from tests.cluster.testbed import api, control_plane, process
from tests.cluster.testbed.places import STANDARD_PORT

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster")]
MODEL = "breast-cancer"
PREDICTORS = {"serving.kserve.io/inferenceservice": "faulty-a", "component": "predictor"}
TWO: dict[str, Any] = {"predictor": {"replicas": 2}, "transformer": {"replicas": 2}}


@pytest.fixture(scope="module")
def target(bundle: Path) -> Generator[Target]:
    """A model with two pods of each service."""
    with released("faulty") as release:
        release.apply(merged(chart.values(MODEL, releases={"a": chart.on_volume(bundle)}), TWO))
        chart.wait_ready("faulty-a")
        record = expected.record(bundles.load(bundle), 0)
        yield Target(f"127.0.0.1:{STANDARD_PORT}", f"faulty-{NAMESPACE}.example.com", MODEL, record)


def evict(pod: str) -> str:
    """Ask for an eviction, as `kubectl drain` does; empty when it is granted, else the API server's words."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    try:
        connect().request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction", body)
    except api.ApiError as error:
        return str(error)
    return ""


def wait_for_two() -> None:
    """Until two predictors are Ready."""
    api.wait("two", lambda: "" if len(chart.ready_pods(**PREDICTORS)) == 2 else "fewer", 120, chart.explain)


def test_evictions_wait_for_one_another(target: Target) -> None:
    first, second = chart.pods(**PREDICTORS)
    with constant(target, rest=2) as seen:
        granted = evict(first)
        refused = evict(second)
        wait_for_two()
        api.wait("an eviction", lambda: evict(second), 60, chart.explain)
        wait_for_two()
        wait_for(seen, 50)

    assert granted == ""
    assert "429" in refused
    assert seen.failures() == []


def kill(pod: str) -> None:
    """End a pod without any grace."""
    connect().request("DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}?gracePeriodSeconds=0")


def test_without_predictors_requests_get_503_until_there_are_some_again(target: Target) -> None:
    with constant(target, rest=2) as seen:
        wait_for(seen, 20)
        for pod in chart.pods(**PREDICTORS):
            kill(pod)
        api.wait("a 503", lambda: "" if seen.failures() else "none", 60, chart.explain)
        wait_for_two()
        chart.wait_ready("faulty-a")
        wait_for(seen, 50)
        again = seen.answers[-20:]

    assert {answer.status for answer in seen.answers} == {"200", "503"}
    assert {answer.status for answer in again} == {"200"}


def restarts(service: str) -> int:
    """How often containers of a slot have been restarted."""
    pods = connect().find("v1", "Pod", NAMESPACE, **{"serving.kserve.io/inferenceservice": service})
    return sum(state["restartCount"] for pod in pods for state in pod["status"]["containerStatuses"])


def test_throttled_pods_pass_their_probes(bundle: Path) -> None:
    slow = {"resources": {"limits": {"cpu": "100m"}}}
    given = chart.values(MODEL, releases={"a": chart.on_volume(bundle)}, predictor=slow, transformer=slow)
    record = expected.record(bundles.load(bundle), 0)
    target = Target(f"127.0.0.1:{STANDARD_PORT}", f"slow-{NAMESPACE}.example.com", MODEL, record)
    with released("slow") as release:
        release.apply(given)
        chart.wait_ready("slow-a", seconds=300)
        with constant(target, rest=4, per_second=20) as seen:
            wait_for(seen, 300)
        restarted = restarts("slow-a")

    assert restarted == 0
    assert {answer.status for answer in seen.answers} <= {"200", "503", "504"}
    assert any(answer.good for answer in seen.answers)


@pytest.mark.long
def test_answers_go_on_while_the_api_server_is_away(target: Target) -> None:
    with constant(target, rest=2, grpc=1) as seen:
        process.stop("kube-apiserver")
        try:
            wait_for(seen, 2 * 60 * 60)  # two minutes of three clients with 20 requests a second
        finally:
            control_plane.api_server().start()
        api.wait(
            "the API server", lambda: "" if connect().request("GET", "/readyz") == "ok" else "no", 60, chart.explain
        )
        wait_for(seen, 100)

    assert seen.failures() == []
    assert seen.mixed() == []
