"""docs/kubernetes.md does what it says, with the model of docs/your-model.md."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.cluster import chart
from tests.cluster.chart import connect, kubeconfig
from tests.cluster.testbed import api, build
from tests.cluster.testbed.places import BUCKET, PROJECT, S3, S3_PORT, STANDARD_PORT
from tests.docs.blocks import consoles, files
from tests.docs.test_pages import run

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster")]
NAMESPACE = "factory"
SMALL = "autoscaling: {enabled: false}, replicas: 1, resources: {requests: {cpu: 20m}}"  # two cores hold both slots
NO_DISK = "pods: {resources: {requests: {ephemeral-storage: null}, limits: {ephemeral-storage: null}}}"
STORE = "networkPolicy: {extraEgress: [{ports: [{port: 7070}]}]}"  # where the S3 server's pods listen
SHOWN = {
    "modelName: pump": f"modelName: pump\n{NO_DISK}\n{STORE}",  # the node does not measure its disk
    "https://s3.example.com": f"http://127.0.0.1:{S3_PORT}",
    "s3-endpoint=s3.example.com": "s3-endpoint=s3.storage",
    "s3-usehttps=1": "s3-usehttps=0",
    "http://gateway.example.com": f"http://127.0.0.1:{STANDARD_PORT}",
    "charts/tabserve": str(chart.CHART),
    "tabserve-predictor}": f"tabserve-predictor, tag: dev}}, {SMALL}",
    "tabserve-transformer}": f"tabserve-transformer, tag: dev}}, {SMALL}",
    "registry.example": "dev.local",
}


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Put `helm`, `kubectl`, the kubeconfig and the S3 credentials into the environment; cleaned up afterwards."""
    monkeypatch.setenv("PATH", f"{build.link_tools()}:{os.environ['PATH']}")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig()))
    monkeypatch.setenv("S3_USER", "testbed:testbed-secret")
    yield
    connect().delete("v1", "Namespace", NAMESPACE)
    api.wait("no namespace", lambda: NAMESPACE if connect().exists("v1", "Namespace", NAMESPACE) else "", 180, str)
    for version in ("pump-1", "pump-2"):
        shutil.rmtree(S3 / BUCKET / version, ignore_errors=True)


@pytest.mark.usefixtures("tools")
def test_from_a_bundle_to_a_second_version(tmp_path: Path) -> None:
    page = (PROJECT / "docs" / "kubernetes.md").read_text()
    written = files((PROJECT / "docs" / "your-model.md").read_text()) | files(page)
    for name, content in written.items():
        for shown, used in SHOWN.items():
            content = content.replace(shown, used)
        (tmp_path / name).write_text(content)
    subprocess.run([sys.executable, "train.py"], cwd=tmp_path, check=True)

    commands = [command for block in consoles(page) for command in block]
    assert len(commands) >= 20
    run(commands, tmp_path, SHOWN)
