"""Deleting pods, rolling back and removing releases, with either Helm: nobody notices, and nothing stays behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, connect, merged, released
from tests.cluster.load import Target, constant
from tests.cluster.shares import wait_for
from tests.cluster.testbed import api, build
from tests.cluster.testbed.places import STANDARD_PORT

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster")]
MODEL = "breast-cancer"
SERVICES = ("predictor", "transformer")
HASTY: dict[str, Any] = {name: {"settings": {"drain_seconds": 2}, "preStopSeconds": 1} for name in SERVICES}
OF_A = {"serving.kserve.io/inferenceservice": "deleted-a"}
KINDS = (
    *(("v1", "Pod"), ("v1", "Service"), ("v1", "ConfigMap"), ("v1", "ServiceAccount")),
    *(("apps/v1", "Deployment"), ("autoscaling/v2", "HorizontalPodAutoscaler"), ("policy/v1", "PodDisruptionBudget")),
    *((chart.SERVING, "InferenceService"), ("serving.kserve.io/v1alpha1", "ServingRuntime")),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
)


def target(release: str, bundle: Path) -> Target:
    """The model behind the gateway of Standard mode."""
    record = expected.record(bundles.load(bundle), 0)
    return Target(f"127.0.0.1:{STANDARD_PORT}", f"{release}-{NAMESPACE}.example.com", MODEL, record)


def named(prefix: str) -> list[str]:
    """Everything in the namespace whose name begins with this."""
    found = [(kind, item) for version, kind in KINDS for item in connect().find(version, kind, NAMESPACE)]
    names = [(kind, item["metadata"]["name"]) for kind, item in found]
    return [f"{kind} {name}" for kind, name in names if name.startswith(prefix)]


@pytest.mark.parametrize("rounds", [1, pytest.param(4, marks=pytest.mark.long)])
def test_every_pod_can_be_deleted(bundle: Path, rounds: int) -> None:
    patient = {name: {"preStopSeconds": 10, "replicas": 2} for name in SERVICES}  # the default: DNS forgets within 7 s
    given = merged(chart.values(MODEL, releases={"a": chart.on_volume(bundle)}), patient)
    with released("deleted") as release:
        release.apply(given)
        chart.wait_ready("deleted-a")
        gone = []
        with constant(target("deleted", bundle), rest=2, grpc=1) as seen:
            wait_for(seen, 50)
            for component in SERVICES * rounds:
                for pod in chart.pods(component=component, **OF_A):
                    delete(pod, component)
                    gone.append(pod)
            wait_for(seen, 100)

    assert len(gone) == 4 * rounds
    assert seen.failures() == []
    assert seen.mixed() == []


def delete(pod: str, component: str) -> None:
    """Delete a pod, and wait until there are two Ready ones again."""
    connect().delete("v1", "Pod", pod, NAMESPACE)

    def lacking() -> str:
        ready = chart.ready_pods(component=component, **OF_A)
        return "" if len(ready) == 2 and pod not in ready else f"{component} {len(ready)}/2"

    api.wait(f"another pod than {pod}", lacking, 120, chart.explain)


@pytest.mark.parametrize("helm", [build.HELM3, build.HELM4], ids=["helm3", "helm4"])
def test_uninstalling_leaves_nothing_behind(bundle: Path, helm: build.Build) -> None:
    with released("removed", helm.folder / "helm") as release:
        release.apply(merged(chart.values(MODEL, releases={"a": chart.on_volume(bundle)}), HASTY))
        chart.wait_ready("removed-a")
        tested = release.test()
        installed = named("removed")
        release.uninstall()
        api.wait("removed", lambda: ", ".join(named("removed")), 90, chart.explain)

    assert "Phase:          Succeeded" in tested
    assert len(installed) >= 10
