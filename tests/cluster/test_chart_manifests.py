"""`manifests/` without Helm: `kubectl apply -k` of an overlay, and a plain InferenceService on the runtime."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tabserve import bundle as bundles
from tabserve import expected
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, kubeconfig
from tests.cluster.load import Target
from tests.cluster.testbed import build
from tests.cluster.testbed.places import PROJECT, STANDARD_PORT
from tests.cluster.testbed.process import run

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster")]
KUBECTL = build.WHEELS.folder / build.KUBECTL
MODEL = "breast-cancer"
IMAGES = [
    {"name": f"tabserve-{name}", "newName": f"dev.local/tabserve-{name}", "newTag": "dev"}
    for name in ("predictor", "transformer")
]
"""kustomize looks for images in every kind that has `containers`."""


def kubectl(*command: str | Path) -> str:
    """kubectl on the cluster under test."""
    return run(KUBECTL, *command, env={"KUBECONFIG": str(kubeconfig())})


@contextmanager
def applied(folder: Path) -> Generator[None]:
    """A kustomization, deleted when the block is left."""
    try:
        kubectl("apply", "-k", folder)
        yield
    finally:
        kubectl("delete", "-k", folder, "--ignore-not-found", "--wait=false")


def own(overlay: str, tmp_path: Path, digest: str, uri: str) -> Path:
    """An overlay of the user's over one of the project's: images, bundle and digest, in the namespace of the tests."""
    shutil.copytree(PROJECT / "manifests", tmp_path / "manifests")
    for file in (tmp_path / "manifests").glob("*/tabserve.yaml"):
        text = file.read_text().replace(f"sha256:{'0' * 64}", digest).replace("pvc://bundles/breast_cancer", uri)
        file.write_text(text.replace("-default.example.com", f"-{NAMESPACE}.example.com"))
    folder = tmp_path / "mine"
    folder.mkdir()
    base = f"../manifests/{overlay}"
    content = {"resources": [base], "namespace": NAMESPACE, "images": IMAGES}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return folder


def test_an_overlay_is_applied_and_answers(bundle: Path, tmp_path: Path) -> None:
    slot = chart.on_volume(bundle)["bundle"]
    record = expected.record(bundles.load(bundle), 0)
    with applied(own("overlays/dev", tmp_path, slot["digest"], slot["storageUri"])):
        chart.wait_ready("breast-cancer-a")
        host = f"breast-cancer-{NAMESPACE}.example.com"
        answer = Target(f"127.0.0.1:{STANDARD_PORT}", host, MODEL, record).once()

    assert answer.status == "200"
    assert answer.transformer == answer.predictor != ""
