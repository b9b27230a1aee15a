"""For all valid values, the API server and KServe's webhooks accept what the chart renders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.chart.helm import HELMS, program, rendered
from tests.cluster.chart import NAMESPACE, connect

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster")]
DIGEST = "sha256:" + "89abcdef" * 8
CPU = st.sampled_from(["50m", "0.5", "2"])
MEMORY = st.sampled_from(["128Mi", "1Gi"])
RESOURCES = st.fixed_dictionaries({"cpu": CPU, "memory": MEMORY})
LABELS = st.dictionaries(st.sampled_from(["team", "cost-centre"]), st.sampled_from(["a", "b-1"]), max_size=2)
TOLERATIONS = st.sampled_from([[], [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]])
METRIC = {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "5"}}}
VOLUME = {"name": "extra", "emptyDir": {}}


def optional(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Maps with some of these keys."""
    return st.fixed_dictionaries({}, optional=keys)


def components(standard: bool) -> st.SearchStrategy[dict[str, Any]]:
    """Values of a component."""
    return st.builds(
        lambda shared, own: {**shared, **own},
        pods(standard),
        optional(
            resources=st.builds(lambda size: {"requests": size, "limits": size}, RESOURCES),
            image=optional(digest=st.sampled_from(["", DIGEST]), pullPolicy=st.sampled_from(["Always", "Never"])),
        ),
    )


def pods(standard: bool) -> st.SearchStrategy[dict[str, Any]]:
    """Values that both components may have."""
    anywhere = {
        "settings": optional(max_rows=st.integers(1, 10**7), log_level=st.sampled_from(["debug", "error"])),
        "env": st.sampled_from([[], [{"name": "OMP_NUM_THREADS", "value": "1"}]]),
        "image": optional(tag=st.sampled_from(["9", "1.20"]), pullPolicy=st.sampled_from(["Always", "Never"])),
        "resources": optional(limits=st.just({"ephemeral-storage": "1Gi"})),
        "podLabels": LABELS,
        "podAnnotations": LABELS,
        "extraVolumes": st.just([VOLUME]),
    }
    autoscaling = optional(
        enabled=st.booleans(), maxReplicas=st.integers(2, 50), targetCPUUtilization=st.integers(1, 200)
    )
    own = {
        "autoscaling": st.one_of(autoscaling, st.just({"metrics": [METRIC]})),
        "replicas": st.integers(1, 9),
        "preStopSeconds": st.integers(0, 60),
        "tolerations": TOLERATIONS,
        "nodeSelector": LABELS,
        "spreadOver": st.sampled_from(["", "topology.kubernetes.io/zone"]),
    }
    return optional(**anywhere, **(own if standard else {}))


@st.composite
def values(draw: st.DrawFn) -> dict[str, Any]:
    """Valid values of every kind."""
    standard = draw(st.booleans())
    placement = draw(st.sampled_from(["separate", "collocated", "none"] if standard else ["collocated", "none"]))
    canary = draw(st.booleans())
    peers: st.SearchStrategy[Any] = st.sampled_from([[], [{"podSelector": {}}]])
    drawn = draw(
        optional(
            pods=pods(standard),
            predictor=components(standard),
            podDisruptionBudget=optional(maxUnavailable=st.sampled_from([0, 3, "50%"])),
            networkPolicy=optional(enabled=st.booleans(), **{"from": peers, "metricsFrom": peers}),
            commonLabels=LABELS,
            scrapeAnnotations=st.booleans(),
            serviceAccount=optional(create=st.booleans()),
            imagePullSecrets=st.sampled_from([[], [{"name": "registry"}]]),
            gateway=optional(timeout=st.sampled_from(["500ms", "1m"]), hostnames=st.just(["fraud.example.org"])),
        )
    )
    release = {
        "bundle": {"storageUri": draw(st.sampled_from(["", "pvc://c/f", "https://x.org/b.zip"])), "digest": DIGEST}
    }
    traffic = {"canary": "b", "canaryPercent": draw(st.integers(0, 100))} if canary else {}
    return {
        **drawn,
        "modelName": draw(st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,20}[A-Za-z0-9]\Z")),
        "mode": "Standard" if standard else "Knative",
        "transformer": {**draw(components(standard)), "placement": placement},
        "releases": {"b": release} if canary else {},
        "traffic": traffic,
    }


def dry_run(item: dict[str, Any]) -> None:
    """Apply an object without keeping it. Raises ApiError if the API server or a webhook refuses it."""
    metadata = item["metadata"]
    path = connect().path(item["apiVersion"], item["kind"], NAMESPACE, metadata["name"])
    query = "dryRun=All&fieldManager=dry-run&fieldValidation=Strict&force=true"
    if item["kind"] == "Pod":  # its ServiceAccount was not kept
        item["spec"]["serviceAccountName"] = "default"
    connect().request("PATCH", f"{path}?{query}", item, "application/apply-patch+yaml")


@pytest.fixture(scope="module")
def helm() -> Path:
    return program(HELMS["helm3"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values())
def test_every_valid_value_is_accepted_by_the_api_server(helm: Path, chosen: dict[str, Any]) -> None:
    for item in rendered(chosen, helm):
        dry_run(item)
