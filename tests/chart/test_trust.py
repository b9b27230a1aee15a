"""Whose bundles are served, by values: every pod that loads the bundle gets the keys, and the release stays."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.helm import one, program, rendered
from tests.chart.test_tls import containers

SOURCES = {"ConfigMap": {"configMap": {"name": "signers"}}, "Secret": {"secret": {"secretName": "signers"}}}
MOUNT = {"name": "trust", "mountPath": "/mnt/trust", "readOnly": True}
JOBS = {
    "batch": {"enabled": True, "source": "/in", "target": "/out"},
    "monitor": {"enabled": True},
    "decisionLog": {"to": "s3://lake/log"},
    "stream": {"enabled": True, "config": {"bootstrap": "b:9092", "group": "g", "in": "i", "out": "o", "dead": "d"}},
}


def values(kind: str) -> dict[str, Any]:
    return {"trust": {"publicKey": {"kind": kind, "name": "signers", "key": "own.pem"}}, **JOBS}


@pytest.mark.parametrize("kind", sorted(SOURCES))
def test_both_services_and_the_jobs_verify(kind: str) -> None:
    objects = rendered(values(kind), program())
    found = containers(objects)
    jobs = [item["spec"]["jobTemplate"]["spec"]["template"]["spec"] for item in objects if item["kind"] == "CronJob"]
    jobs.append(one(objects, "Deployment")["spec"]["template"]["spec"])
    volumes = [
        one(objects, "InferenceService")["spec"]["transformer"]["volumes"],
        one(objects, "ServingRuntime")["spec"]["volumes"],
        *(job["volumes"] for job in jobs),
    ]

    assert len(found) == 2
    for each in found.values():
        assert {"name": "TABSERVE_TRUST_PUBLIC_KEY", "value": "/mnt/trust/own.pem"} in each["env"]
        assert MOUNT in each["volumeMounts"]
    assert len(jobs) == 3
    for job in jobs:
        assert "--verify=/mnt/trust/own.pem" in job["containers"][0]["args"]
        assert MOUNT in job["containers"][0]["volumeMounts"]
    assert all({"name": "trust", **SOURCES[kind]} in each for each in volumes)


def test_by_default_signatures_are_not_looked_at() -> None:
    assert "trust" not in str([*containers(rendered(JOBS, program())).values()])
