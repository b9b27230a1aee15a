"""The stream's Deployment, its autoscalers, and the file that it gives to `tabserve stream`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tabserve.decision_log.kafka_keys import Secret
from tabserve.stream import config
from tests.chart.definitions import faults
from tests.chart.helm import HELMS, one, program, rendered, template

CONFIG = {"bootstrap": "kafka:9092", "group": "fraud", "in": "payments", "out": "decisions", "dead": "dead"}
KAFKA = {"sasl.password": {"file": "/mnt/kafka/password"}}


@pytest.fixture(scope="module", params=HELMS)
def helm(request: pytest.FixtureRequest) -> Path:
    return program(HELMS[request.param])


def objects(helm: Path, **stream: Any) -> list[dict[str, Any]]:
    """What belongs to the stream."""
    given = {"enabled": True, "config": {**CONFIG, "kafka": KAFKA}, "secretName": "kafka", **stream}
    found = rendered({"stream": given}, helm)
    return [item for item in found if item["metadata"]["name"] == "fraud-stream"]


def test_the_stable_release_decides_the_topic(helm: Path, tmp_path: Path) -> None:
    found = objects(helm, options=["--threads=2"], config={**CONFIG, "kafka": KAFKA})
    pod = one(found, "Deployment")["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert container["args"][:3] == ["stream", "/mnt/models", "--config=/etc/tabserve/stream.yaml"]
    assert f"--release={pod['metadata']['annotations']['tabserve/release']}" in container["args"]
    assert container["args"][-1] == "--threads=2"
    assert "internal.serving.kserve.io/storage-initializer-sourceuri" in pod["metadata"]["annotations"]
    assert pod["spec"]["terminationGracePeriodSeconds"] == 60
    assert container["securityContext"]["readOnlyRootFilesystem"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"tmp": "/tmp", "config": "/etc/tabserve", "kafka": "/mnt/kafka"}
    assert {volume["name"] for volume in pod["spec"]["volumes"]} == mounts.keys()
    (tmp_path / "stream.yaml").write_text(one(found, "ConfigMap")["data"]["stream.yaml"])
    read = config.load(tmp_path / "stream.yaml")
    assert (read.source, read.target, read.dead) == ("payments", "decisions", "dead")
    assert read.kafka == {"sasl.password": Secret(file="/mnt/kafka/password")}


def test_a_changed_config_rolls_the_pods(helm: Path) -> None:
    pods = [one(objects(helm, config={**CONFIG, "batch": batch}), "Deployment")["spec"]["template"] for batch in (1, 2)]
    first, second = (pod["metadata"]["annotations"]["tabserve/config"] for pod in pods)
    assert first != second


def test_cpu_scales_the_pods(helm: Path) -> None:
    found = objects(helm)
    scaler = one(found, "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "fraud-stream"}
    assert scaler["metrics"][0]["resource"]["name"] == "cpu"
    assert "replicas" not in one(found, "Deployment")["spec"]
    assert one(objects(helm, autoscaling={"enabled": False}, replicas=3), "Deployment")["spec"]["replicas"] == 3


def test_keda_scales_by_what_waits_and_its_object_fits_keda_s_own_definition(helm: Path) -> None:
    found = objects(helm, keda={"enabled": True, "authentication": "kafka"})
    assert "HorizontalPodAutoscaler" not in {item["kind"] for item in found}
    scaled = one(found, "ScaledObject")
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"] == {
        "bootstrapServers": "kafka:9092",
        "consumerGroup": "fraud",
        "topic": "payments",
        "lagThreshold": "20000",
        "activationLagThreshold": "100",
        "offsetResetPolicy": "earliest",
    }
    assert faults(scaled) == []
    assert faults({**scaled, "spec": {**scaled["spec"], "maxReplicas": 3}})


@pytest.mark.parametrize("key", CONFIG)
def test_a_stream_without_a_topic_is_refused(helm: Path, key: str) -> None:
    given = {name: value for name, value in CONFIG.items() if name != key}
    done = template({"stream": {"enabled": True, "config": given}}, helm)
    assert done.returncode != 0
    assert f"stream.config.{key} is needed where stream.enabled is true; set it" in done.stderr
