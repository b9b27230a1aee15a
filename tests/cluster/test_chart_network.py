"""NetworkPolicies where they are enforced: who is named gets through, and nobody else."""

from __future__ import annotations

import json
import os
import urllib.parse
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, connect, merged, released
from tests.cluster.load import Target
from tests.cluster.plain import RESTRICTED
from tests.cluster.testbed import api, process
from tests.cluster.testbed.addons import dns, envoy_gateway, prometheus
from tests.cluster.testbed.build import KUBECTL, WHEELS
from tests.cluster.testbed.images import PYTHON
from tests.cluster.testbed.places import PROMETHEUS_PORT, STANDARD_PORT
from tests.cluster.testbed.process import CommandFailed

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.usefixtures("cluster")]
NAME, MODEL, OTHER = "walled", "breast-cancer", "stranger"
DNS = [{"port": 1053, "protocol": protocol} for protocol in ("UDP", "TCP")]
"""Where the testbed's CoreDNS listens behind its Service; policies are about the ports of pods."""
TRY = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"


def named(namespace: str) -> list[dict[str, Any]]:
    """The peers that are the pods of a namespace."""
    return [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}]


WALLS: dict[str, Any] = {
    "networkPolicy": {
        "enabled": True,
        "from": named(envoy_gateway.NAMESPACE),
        "metricsFrom": named(prometheus.NAMESPACE),
        "extraEgress": [{"ports": DNS, "to": named(dns.NAMESPACE)}],
    }
}


@pytest.fixture
def enforced() -> None:
    if os.environ.get("TABSERVE_KUBECONFIG") is None and process.running("kube-router") is None:
        pytest.skip("nothing enforces NetworkPolicies; `make cluster-up ADD=network-policy` adds what does")


@contextmanager
def stranger() -> Generator[str]:
    """A pod that no policy names."""
    user = {"securityContext": {**RESTRICTED, "runAsUser": 65532}}
    container = {"name": OTHER, "image": PYTHON, "command": ["sleep", "3600"], **user}
    metadata = {"name": OTHER, "namespace": NAMESPACE, "labels": {"app": OTHER}}
    connect().apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}})
    try:
        api.wait("the stranger", lambda: "" if chart.ready_pods(app=OTHER) else "not ready", 120, chart.explain)
        yield OTHER
    finally:
        chart.kill(OTHER)


def reaches(pod: str, address: str, port: int) -> bool:
    """Whether a pod can open a connection."""
    command = ("exec", "-n", NAMESPACE, pod, "--", "python3", "-c", TRY, address, str(port))
    try:
        process.run(WHEELS.folder / KUBECTL, *command, env={"KUBECONFIG": str(chart.kubeconfig())})
    except CommandFailed:
        return False
    return True


def pod_of(component: str) -> tuple[str, str]:
    """Name and address of the only pod of a component."""
    (pod,) = chart.staying(**{"serving.kserve.io/inferenceservice": f"{NAME}-a", "component": component})
    return pod["metadata"]["name"], pod["status"]["podIP"]


def scraped() -> int:
    """How many pods of the release Prometheus reads."""
    query = urllib.parse.urlencode({"query": f'up{{pod=~"{NAME}-a-.+"}} == 1'})
    with urllib.request.urlopen(f"http://127.0.0.1:{PROMETHEUS_PORT}/api/v1/query?{query}", timeout=10) as answer:
        return len(json.load(answer)["data"]["result"])


def connections(other: str) -> dict[str, bool]:
    """Which connections are open that no value names."""
    transformer, its_address = pod_of("transformer")
    predictor, address = pod_of("predictor")
    (monitor,) = connect().find("v1", "Pod", prometheus.NAMESPACE, app="prometheus")
    return {
        **{f"stranger to transformer at {port}": reaches(other, its_address, port) for port in (8080, 8081, 8082)},
        **{f"stranger to predictor at {port}": reaches(other, address, port) for port in (8080, 8082)},
        "predictor to transformer": reaches(predictor, its_address, 8080),
        "transformer to Prometheus": reaches(transformer, monitor["status"]["podIP"], 9090),
    }


@pytest.mark.usefixtures("enforced")
def test_who_is_named_gets_through_and_nobody_else(bundle: Path) -> None:
    record = expected.record(bundles.load(bundle), 0)
    target = Target(f"127.0.0.1:{STANDARD_PORT}", f"{NAME}-{NAMESPACE}.example.com", MODEL, record)
    given = chart.values(MODEL, releases={"a": chart.on_volume(bundle)}, networkPolicy={"enabled": False})
    with released(NAME) as release, stranger() as other:
        release.apply(given)
        chart.wait_ready(f"{NAME}-a")
        without = connections(other)
        release.apply(merged(given, WALLS))
        api.wait("the policies", lambda: "open" if any(connections(other).values()) else "", 120, chart.explain)
        behind = connections(other)
        answers = [target.once().status for _ in range(20)]
        transformer, _ = pod_of("transformer")
        to_predictor = reaches(transformer, pod_of("predictor")[1], 8080)
        api.wait("both scraped", lambda: "" if scraped() == 2 else str(scraped()), 60, chart.explain)
        tested = release.test()
        chart.kill(transformer)  # what replaces it finds its predictor by DNS, through the policies
        chart.wait_ready(f"{NAME}-a")
        again = [target.once().status for _ in range(20)]
    print(f"without policies: {without}\nwith them: {behind}")

    assert all(without.values()), without
    assert not any(behind.values()), behind
    assert answers == again == ["200"] * 20
    assert to_predictor
    assert "Phase:          Succeeded" in tested
