"""A batch by Spark: the operator's objects, checked against its own definitions, and what they are refused for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chart.definitions import faults
from tests.chart.helm import program, rendered, template

DIGEST = "sha256:" + "0123456789abcdef" * 4
BUNDLE = {"a": {"bundle": {"storageUri": "pvc://bundles/fraud/7", "digest": DIGEST}}}
MOUNT = {"name": "bundle", "mountPath": "/mnt/models", "readOnly": True, "subPath": "fraud/7"}


@pytest.fixture(scope="module")
def helm() -> Path:
    return program()


def values(**batch: Any) -> dict[str, Any]:
    given = {"enabled": True, "engine": "spark", "source": "s3a://lake/payments", "target": "s3a://lake/decided"}
    return {"releases": BUNDLE, "batch": {**given, **batch}}


def application(given: dict[str, Any], helm: Path) -> dict[str, Any]:
    """The only object of the batch."""
    (found,) = (item for item in rendered(given, helm) if item["metadata"]["name"] == "fraud-batch")
    assert faults(found) == []
    return found


def test_the_stable_bundle_decides_a_table_on_a_schedule(helm: Path) -> None:
    found = application(values(options=["--keep=payment_id"], retries=2), helm)
    spec = found["spec"]["template"]

    assert (found["kind"], found["spec"]["schedule"]) == ("ScheduledSparkApplication", "0 3 * * *")
    assert found["spec"]["concurrencyPolicy"] == "Forbid"
    assert spec["arguments"] == [
        *("/mnt/models", "s3a://lake/payments", "s3a://lake/decided", f"--digest={DIGEST}"),
        *("--keep=payment_id", "--overwrite"),
    ]
    assert spec["restartPolicy"]["onFailureRetries"] == 2
    for pod in (spec["driver"], spec["executor"]):
        assert MOUNT in pod["volumeMounts"]
        assert pod["podSecurityContext"]["runAsNonRoot"]
    claim = {"claimName": "bundles", "readOnly": True}
    assert {"name": "bundle", "persistentVolumeClaim": claim} in spec["volumes"]


def test_without_a_schedule_it_is_run_once(helm: Path) -> None:
    given = {"driver": {"cores": 2}, "executor": {"instances": 5}, "conf": {"spark.sql.files.maxPartitionBytes": "32m"}}
    found = application(values(schedule="", suspend=True, spark=given), helm)

    assert (found["kind"], found["spec"]["suspend"]) == ("SparkApplication", True)
    assert (
        found["spec"]["driver"].items()
        >= {"cores": 2, "memory": "1g", "serviceAccount": "spark-operator-spark"}.items()
    )
    assert found["spec"]["executor"].items() >= {"instances": 5, "memoryOverhead": "1g"}.items()
    assert found["spec"]["sparkConf"] == given["conf"]


def test_the_operator_s_definition_takes_no_other_key(helm: Path) -> None:
    found = application(values(schedule=""), helm)
    spec = found["spec"]

    assert faults({**found, "spec": {**spec, "executor": {**spec["executor"], "instances": 0}}})
    assert faults({**found, "spec": {**spec, "driver": {**spec["driver"], "replicas": 2}}})
    assert faults({**found, "spec": {name: spec[name] for name in spec if name != "mainApplicationFile"}})


def test_driver_and_executors_know_whom_to_trust_and_have_the_store_s_credentials(helm: Path) -> None:
    env = [{"name": "AWS_ACCESS_KEY_ID", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "id"}}}]
    trust = {"publicKey": {"kind": "Secret", "name": "signers", "key": "own.pem"}}
    spec = application(
        {
            **values(env=env, schedule=""),
            "trust": trust,
            "trusted": ["own.Model"],
            "imagePullSecrets": [{"name": "pull"}],
        },
        helm,
    )["spec"]

    assert {"--verify=/mnt/trust/own.pem", "--trusted=own.Model"} <= {*spec["arguments"]}
    assert {"name": "trust", "secret": {"secretName": "signers"}} in spec["volumes"]
    assert spec["imagePullSecrets"] == ["pull"]
    for pod in (spec["driver"], spec["executor"]):
        assert env[0] in pod["env"]
        assert {"name": "trust", "mountPath": "/mnt/trust", "readOnly": True} in pod["volumeMounts"]


def test_a_bundle_in_the_image_needs_no_volume(helm: Path) -> None:
    baked = {"releases": {"a": {"bundle": {"storageUri": "", "digest": DIGEST}}}}
    spec = application(values(schedule="") | baked, helm)["spec"]

    assert "volumes" not in spec
    assert spec["arguments"][0] == "/mnt/models"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"releases": {"a": {"bundle": {"storageUri": "s3://models/7"}}}}, "put the bundle on a volume (releases.a."),
        ({"batch": {"engine": "job", "schedule": ""}}, "batch.schedule is empty, and only Spark runs without one"),
        ({"batch": {"spark": {"version": "3.5.1"}}}, "/batch/spark/version"),
    ],
)
def test_what_would_not_run_is_refused(helm: Path, given: dict[str, Any], told: str) -> None:
    base = values()
    done = template({**base, **given, "batch": {**base["batch"], **given.get("batch", {})}}, helm)
    assert done.returncode != 0
    assert told in done.stderr
