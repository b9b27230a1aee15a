"""`manifests/loadtest/` in the cluster: a Job in charge and two workers send a little load, and the report is kept."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from loadtest.document import decode
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, connect, released
from tests.cluster.testbed import api, catalog
from tests.cluster.testbed.images import Built
from tests.cluster.testbed.places import PROJECT

pytestmark = pytest.mark.cluster
IMAGE = Built("tabserve-loadtest", PROJECT / "loadtest/Dockerfile", context=PROJECT, version="dev",
              copies=("requirements.lock", "pyproject.toml", "tabserve", "loadtest"))  # fmt: skip
RELEASE = "jobs"
SHORT = ["--url=http://jobs-a-transformer", "--set=rate=20", "--set=seconds=5", "--set=p50=5000", "--set=p99=9000"]
JOB_SECONDS = 240.0


@pytest.fixture
def objects() -> Generator[list[api.Object]]:
    """The manifests, for the image built here and a short run on the release; deleted with the test."""
    catalog.make(IMAGE)
    catalog.load(IMAGE)
    found = api.load(PROJECT / "manifests/loadtest/loadtest.yaml")
    for item in found:
        item["metadata"]["namespace"] = NAMESPACE
    for job in (item for item in found if item["kind"] == "Job"):
        job["spec"]["template"]["spec"]["containers"][0] |= {"image": IMAGE.tag, "imagePullPolicy": "Never"}
    arguments = api.named(found, "Job", "loadtest")["spec"]["template"]["spec"]["containers"][0]["args"]
    arguments += SHORT  # of an option given twice the last counts
    yield found
    for item in found:
        connect().delete(item["apiVersion"], item["kind"], item["metadata"]["name"], NAMESPACE)


def running() -> str:
    """What the Job in charge lacks of an end."""
    status = connect().get("batch/v1", "Job", "loadtest", NAMESPACE).get("status", {})
    return "" if status.get("succeeded") or status.get("failed") else "still running"


def test_a_job_in_charge_and_two_workers_load_a_release(bundle: Path, objects: list[api.Object]) -> None:
    with released(RELEASE) as release:
        release.apply(chart.values("breast-cancer", releases={"a": chart.on_volume(bundle)}))
        chart.wait_ready("jobs-a")
        connect().apply(*objects)
        api.wait("the Job loadtest", running, JOB_SECONDS, chart.explain)
        (pod,) = connect().find("v1", "Pod", NAMESPACE, **{"job-name": "loadtest"})
        kept = connect().logs(NAMESPACE, pod["metadata"]["name"], "loadtest", lines=1)

    (section,) = decode(kept.encode()).sections
    assert set(section.outcomes) == {"ok"}, kept
    assert sum(section.outcomes.values()) > 50
