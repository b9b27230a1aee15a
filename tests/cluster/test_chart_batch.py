"""The chart's CronJob in the cluster turns files on the S3 server into files of decisions there."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, merged, released
from tests.cluster.testbed import api, catalog
from tests.cluster.testbed.images import Built
from tests.cluster.testbed.places import BUCKET, PROJECT, S3

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.usefixtures("cluster")]
IMAGE = Built("tabserve-batch", PROJECT / "Dockerfile", context=PROJECT, target="batch", version="dev",
              copies=("requirements.lock", "pyproject.toml", "tabserve", "predictor"))  # fmt: skip
STORE = "?scheme=http&endpoint_override=s3.storage&region=us-east-1"
SECRET = {"name": "s3-credentials"}
ENVIRONMENT = [
    {"name": name, "valueFrom": {"secretKeyRef": {**SECRET, "key": name}}}
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
]
JOB_SECONDS = 300


@pytest.fixture(scope="module")
def image() -> None:
    """The image of `tabserve score` on the node; no other test needs it."""
    catalog.provide(IMAGE)


@pytest.mark.usefixtures("image")
def test_a_cron_job_scores_files_of_the_store(bundle: Path) -> None:
    found = bundles.load(bundle)
    records = [expected.record(found, row) for row in range(50)]
    source = S3 / BUCKET / "records" / "day=1"
    source.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(records), source / "a.parquet")
    batch = {
        "enabled": True,
        "schedule": "@yearly",
        "source": f"s3://{BUCKET}/records{STORE}",
        "target": f"s3://{BUCKET}/decided{STORE}",
        "image": {"repository": "dev.local/tabserve-batch", "tag": "dev"},
        "env": ENVIRONMENT,
        "resources": {
            "requests": {"cpu": "20m", "ephemeral-storage": None},
            "limits": {"ephemeral-storage": None},
        },
    }
    with released("batch") as release:
        given = chart.values("breast-cancer", releases={"a": chart.on_volume(bundle)}, batch=batch)
        release.apply(merged(given, {"test": {"timeoutSeconds": 60}}))
        cluster = chart.connect()
        cron = cluster.get("batch/v1", "CronJob", "batch-batch", NAMESPACE)
        cluster.apply(
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": "batch-now", "namespace": NAMESPACE},
                "spec": cron["spec"]["jobTemplate"]["spec"],
            }
        )
        api.wait("the job", lacking, JOB_SECONDS, chart.explain)
        cluster.delete("batch/v1", "Job", "batch-now", NAMESPACE)
    done = json.loads((S3 / BUCKET / "decided" / "_tabserve.json").read_text())
    assert (done["rows"], done["errors"], done["bundle"]) == (50, 0, found.digest)
    (output,) = (S3 / BUCKET / "decided" / "day=1").glob("a-*.parquet")
    decisions = [expected.decision(found, row)["decision"] for row in range(50)]
    assert pq.read_table(output).column("decision").to_pylist() == decisions


def lacking() -> str:
    """What is missing until the job is complete."""
    status = chart.connect().get("batch/v1", "Job", "batch-now", NAMESPACE).get("status", {})
    return "" if status.get("succeeded") else f"not succeeded: {status}"
