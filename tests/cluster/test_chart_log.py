"""The decision log in the cluster: to the S3 server, switched on in a live slot, with a pod killed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, connect, merged, released
from tests.cluster.load import Target, constant
from tests.cluster.shares import wait_for
from tests.cluster.test_chart_batch import ENVIRONMENT, STORE
from tests.cluster.testbed import api, catalog
from tests.cluster.testbed.images import Built
from tests.cluster.testbed.places import BUCKET, PROJECT, S3, STANDARD_PORT

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.usefixtures("cluster")]
IMAGE = Built("tabserve-transformer-log", PROJECT / "Dockerfile", context=PROJECT, target="transformer", version="dev",
              copies=("requirements.lock", "pyproject.toml", "tabserve", "transformer"),
              arguments=("TRANSFORMER_EXTRA=transformer-log",))  # fmt: skip
MODEL = "breast-cancer"
PODS = {"serving.kserve.io/inferenceservice": "logged-a", "component": "transformer"}
FOLDER = "decisions"
FILE_SECONDS = 3
LOG = {"to": f"s3://{BUCKET}/{FOLDER}{STORE}", "fileSeconds": FILE_SECONDS, "env": ENVIRONMENT}
SETTLE_SECONDS = 90
_COUNT = re.compile(r'^tabserve_log_records_total\{result="(\w+)"\} ([\d.e+]+)$', re.MULTILINE)


@pytest.fixture(scope="module")
def image() -> None:
    """The image of a transformer with Arrow on the node; no other test needs it."""
    catalog.provide(IMAGE)


def counted(pod: str) -> dict[str, int]:
    """A pod's records by what became of them, and in `waiting` those that are yet to be written."""
    page = connect().request("GET", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8082/proxy/metrics")
    (waiting,) = re.findall(r"^tabserve_log_buffer_rows ([\d.e+]+)$", page, re.MULTILINE)
    return {result: int(float(count)) for result, count in [*_COUNT.findall(page), ("waiting", waiting)]}


def found(pod: str = "") -> list[dict[str, Any]]:
    """The records in the store, of a pod or of all."""
    files = sorted((S3 / BUCKET / FOLDER).rglob(f"{pod}*.parquet"))
    return [row for path in files for row in pq.ParquetFile(path).read(["id", "release"]).to_pylist()]


def wait_written(pods: list[str]) -> None:
    """Wait until these pods, which get no requests, have written all that they have."""

    def lacking() -> str:
        waiting = {pod: counted(pod)["waiting"] for pod in pods}
        return "" if not any(waiting.values()) else f"waiting: {waiting}"

    api.wait("the log to be written", lacking, SETTLE_SECONDS, chart.explain)


@pytest.mark.usefixtures("image")
def test_a_log_is_switched_on_in_a_live_slot_and_survives_a_pod(bundle: Path) -> None:
    """No request is lost, the release stays, and what pods counted as written is in the store."""
    own = {"replicas": 2, "image": {"repository": "dev.local/tabserve-transformer-log"}}
    given = chart.values(MODEL, releases={"a": chart.on_volume(bundle)}, transformer=own)
    record = expected.record(bundles.load(bundle), 0)
    target = Target(f"127.0.0.1:{STANDARD_PORT}", f"logged-{NAMESPACE}.example.com", MODEL, record)
    with released("logged") as release:
        release.apply(given)
        chart.wait_ready("logged-a")
        before = chart.release_of("logged-a")
        with constant(target, rest=2, grpc=1) as seen:
            wait_for(seen, 50)
            release.apply(merged(given, {"decisionLog": LOG}))
            wait_rolled(lambda: logging_pods())
            switched = time.monotonic()
            wait_for(seen, 20 * 60)  # twenty seconds: several files of each pod
            unharmed = seen.failures()
            victim, survivor = logging_pods()
            lost = counted(victim)["waiting"]
            chart.kill(victim)
            wait_rolled(lambda: [pod for pod in logging_pods() if pod != victim])
            wait_for(seen, 100)
        answers = [answer for answer in seen.since(switched) if answer.good]
        pods = logging_pods()
        wait_written(pods)
        counts = {pod: counted(pod) for pod in pods}
        print(
            f"{len(answers)} answers since it was on, {len(found())} records, {lost} waited in the killed pod: {counts}"
        )

        assert unharmed == []
        assert chart.release_of("logged-a") == before
        assert survivor in pods
        assert victim not in pods
        for pod, count in counts.items():
            assert count["written"] == len(found(pod)) > 0
            assert count["dropped"] == count["failed"] == count["sampled"] == 0
        assert {row["release"] for row in found()} == {before}
        ids = [row["id"] for row in found()]
        assert len(set(ids)) == len(ids)
        # the killed pod loses its open file and what it was putting into one: no more than it answers in that time
        most_lost = lost + 60 * (FILE_SECONDS + 5)
        assert len(answers) - most_lost <= len(ids)


def logging_pods() -> list[str]:
    """The transformer's pods that are Ready and log their decisions."""
    ready = set(chart.ready_pods(**PODS))
    return sorted(
        pod["metadata"]["name"]
        for pod in chart.staying(**PODS)
        if pod["metadata"]["name"] in ready and "TABSERVE_DECISION_LOG" in str(pod["spec"]["containers"])
    )


def wait_rolled(pods: Callable[[], list[str]]) -> None:
    """Wait until the slot has two such pods and no other, the old ones included."""

    def lacking() -> str:
        wanted, there = pods(), chart.pods(**PODS)
        return "" if len(wanted) == 2 and sorted(there) == wanted else f"{wanted} of {there}"

    api.wait("two pods that log", lacking, chart.READY_SECONDS, chart.explain)
    chart.wait_ready("logged-a")


@pytest.mark.usefixtures("image")
def test_a_pod_that_ends_writes_what_it_has(bundle: Path) -> None:
    """With files that would end only in an hour, records are in the store because the pods were told to end."""
    own = {"image": {"repository": "dev.local/tabserve-transformer-log"}}
    folder = f"{FOLDER}-ended"
    log = {**LOG, "to": f"s3://{BUCKET}/{folder}{STORE}", "fileSeconds": 3600}
    given = chart.values(MODEL, releases={"a": chart.on_volume(bundle)}, transformer=own, decisionLog=log)
    record = expected.record(bundles.load(bundle), 0)
    target = Target(f"127.0.0.1:{STANDARD_PORT}", f"ended-{NAMESPACE}.example.com", MODEL, record)
    with released("ended") as release:
        release.apply(given)
        chart.wait_ready("ended-a")
        with constant(target, rest=2) as seen:
            wait_for(seen, 100)
        asked = len(seen.answers)
        assert seen.failures() == []
        assert not list((S3 / BUCKET / folder).rglob("*.parquet"))

    def lacking() -> str:
        rows = sum(pq.read_metadata(path).num_rows for path in (S3 / BUCKET / folder).rglob("*.parquet"))
        return "" if rows == asked else f"{rows} of {asked} records"

    api.wait("the records of the pod that ended", lacking, SETTLE_SECONDS, chart.explain)
