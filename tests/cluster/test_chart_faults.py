"""What goes wrong in a cluster: evictions, throttled pods, predictors that are gone, an API server that is down."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, connect, merged, released
from tests.cluster.load import Target, constant
from tests.cluster.shares import wait_for
from tests.cluster.testbed import api, process
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
    """Ask for an eviction, as `kubectl drain` does; empty if it is granted, otherwise the API server's words."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    try:
        connect().request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction", body)
    except api.ApiError as error:
        return str(error)
    return ""


def test_evictions_wait_for_one_another(target: Target) -> None:
    first, second = chart.pods(**PREDICTORS)
    with constant(target, rest=2) as seen:
        granted = evict(first)
        refused = evict(second)
        chart.wait_for_pods(2, PREDICTORS)
        api.wait("an eviction", lambda: evict(second), 60, chart.explain)
        chart.wait_for_pods(2, PREDICTORS)
        wait_for(seen, 50)

    assert granted == ""
    assert "429" in refused
    assert seen.failures() == []


def test_without_predictors_requests_get_503_until_there_are_some_again(target: Target) -> None:
    with constant(target, rest=2) as seen:
        wait_for(seen, 20)
        for pod in chart.pods(**PREDICTORS):
            chart.kill(pod)
        api.wait("a 503", lambda: "" if seen.failures() else "none", 60, chart.explain)
        chart.wait_for_pods(2, PREDICTORS)
        chart.wait_ready("faulty-a")
        wait_for(seen, 50)
        again = seen.answers[-20:]

    assert {answer.status for answer in seen.answers} == {"200", "503"}
    assert {answer.status for answer in again} == {"200"}


def restarts(service: str) -> int:
    """How often a slot's containers have been restarted."""
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


def ends(service: str) -> list[str]:
    """Why a slot's restarted containers ended."""
    found = connect().find("v1", "Pod", NAMESPACE, **{"serving.kserve.io/inferenceservice": service})
    states = [state for pod in found for state in pod["status"]["containerStatuses"]]
    return [state["lastState"]["terminated"]["reason"] for state in states if state["restartCount"]]


def send(target: Target, size: int) -> str:
    """Send a body of this size; returns the answer's status, or how the connection ended."""
    with closing(target.connection()) as connection:
        try:
            connection.request("POST", f"/v2/models/{target.model}/infer", bytes(size), {"Host": target.host})
            return str(connection.getresponse().status)
        except OSError as error:
            return repr(error)


def test_a_pod_out_of_memory_restarts_and_the_other_one_answers(bundle: Path) -> None:
    tight = {
        "replicas": 2,
        "settings": {"max_body_bytes": 2**30, "memory_limit_bytes": 2**34},
        "resources": {"limits": {"memory": "200Mi"}},
    }
    given = chart.values(MODEL, releases={"a": chart.on_volume(bundle)}, predictor=tight)
    record = expected.record(bundles.load(bundle), 0)
    target = Target(f"127.0.0.1:{STANDARD_PORT}", f"oom-{NAMESPACE}.example.com", MODEL, record)
    with released("oom") as release:
        release.apply(merged(given, {"transformer": {"placement": "none"}}))
        chart.wait_ready("oom-a")
        with constant(target, rest=2) as seen:
            wait_for(seen, 50)
            sent = send(target, 300 * 2**20)
            api.wait("a restart", lambda: "" if ends("oom-a") else "none", 60, chart.explain)
            meanwhile = seen.answers[-20:]
            chart.wait_ready("oom-a")
            calm = len(seen.answers)
            wait_for(seen, 100)
        reasons = ends("oom-a")

    assert sent != "200"
    assert reasons == ["OOMKilled"]
    assert any(answer.good for answer in meanwhile)
    assert {answer.status for answer in seen.failures()} <= {"503"}
    assert all(answer.good for answer in seen.answers[calm + 10 :])


def test_answers_go_on_while_the_nodes_agents_restart(target: Target, testbed: Callable[[str], str]) -> None:
    with constant(target, rest=2, grpc=1) as seen:
        process.stop("kubelet")
        process.stop("containerd")
        wait_for(seen, 300)
        testbed("up")
        connect().delete("v1", "Pod", chart.pods(**PREDICTORS)[0], NAMESPACE)
        chart.wait_for_pods(2, PREDICTORS)
        wait_for(seen, 100)

    assert seen.failures() == []


@pytest.mark.long
def test_answers_go_on_while_the_api_server_is_away(target: Target, testbed: Callable[[str], str]) -> None:
    with constant(target, rest=2, grpc=1) as seen:
        process.stop("kube-apiserver")
        try:
            wait_for(seen, 2 * 60 * 60)  # two minutes of three clients with 20 requests a second
        finally:
            testbed("up")
        wait_for(seen, 100)

    assert seen.failures() == []
    assert seen.mixed() == []
