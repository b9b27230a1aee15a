"""`manifests/loadtest/` in the cluster: a Job in charge and two workers send some load, and the report is kept."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

from tabserve_loadtest.document import decode
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, connect, released
from tests.cluster.testbed import api, catalog
from tests.cluster.testbed.images import Built
from tests.cluster.testbed.places import PROJECT

pytestmark = pytest.mark.cluster
COPIED = ("requirements.lock", "pyproject.toml", "tabserve", "loadtest")
RELEASE = "jobs"
SHORT = ["--url=http://jobs-a-transformer", "--set=rate=20", "--set=seconds=5", "--set=p50=5000", "--set=p99=9000"]
JOB_SECONDS = 240.0


@pytest.fixture
def image(tmp_path: Path) -> Built:
    """The generator's image, in the node, built from a copy without the project's .dockerignore."""
    for name in COPIED:
        copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
        copy(PROJECT / name, tmp_path / name)
    built = Built("tabserve-loadtest", tmp_path / "loadtest/Dockerfile", tmp_path, COPIED, version="dev")
    if not catalog.is_loaded(built):
        catalog.make(built)
        catalog.load(built)
    return built


@pytest.fixture
def objects(image: Built) -> Generator[list[api.Object]]:
    """The manifests, for the image built here and a short run on the release; deleted with the test."""
    found = api.load(PROJECT / "manifests/loadtest/loadtest.yaml")
    for item in found:
        item["metadata"]["namespace"] = NAMESPACE
    for job in (item for item in found if item["kind"] == "Job"):
        job["spec"]["template"]["spec"]["containers"][0] |= {"image": image.tag, "imagePullPolicy": "Never"}
    arguments = api.named(found, "Job", "loadtest")["spec"]["template"]["spec"]["containers"][0]["args"]
    arguments += SHORT  # if an option is given twice, the last counts
    yield found
    for item in found:
        connect().delete(item["apiVersion"], item["kind"], item["metadata"]["name"], NAMESPACE)


def running() -> str:
    """Why the Job in charge has not ended yet, empty if it has."""
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
