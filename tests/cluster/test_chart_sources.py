"""Bundles from other places than the volume: the S3 server, through KServe's initializer, and the images."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tabserve import bundle as bundles
from tests.cluster import chart
from tests.cluster.chart import Values, merged, released
from tests.cluster.testbed import catalog
from tests.cluster.testbed.images import buildah
from tests.cluster.testbed.places import BUCKET, CONTAINERD_SOCKET, S3
from tests.cluster.testbed.process import run
from tests.serving import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster")]


def in_bucket(folder: Path) -> Values:
    """Put a bundle into the S3 server's bucket; returns its place, and who may read it."""
    shutil.copytree(folder, S3 / BUCKET / "chart", dirs_exist_ok=True)
    bundle = {"storageUri": f"s3://{BUCKET}/chart", "digest": bundles.load(folder).digest}
    return {"releases": {"a": {"bundle": bundle}}, "serviceAccount": {"create": False, "name": "s3-reader"}}


def baked(folder: Path, tmp_path: Path) -> Values:
    """Bake a bundle into both images, as docs/your-model.md says; returns the images, without storage."""
    images = {made.name: bake(made.tag, made.name, folder, tmp_path) for made in catalog.SERVICES}
    tags = {name.removeprefix("tabserve-"): {"image": {"tag": tag}} for name, tag in images.items()}
    return {"releases": {"a": {"bundle": {"digest": bundles.load(folder).digest}, **tags}}}


def bake(image: str, name: str, folder: Path, tmp_path: Path) -> str:
    """Make an image with a bundle at /mnt/models, and load it into the node; returns its tag."""
    archive = tmp_path / f"{name}.tar"
    run("ctr", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", "images", "export", archive, image)
    container = buildah("from", f"oci-archive:{archive}").strip()
    buildah("copy", container, folder, "/mnt/models")
    archive.unlink()
    buildah("commit", container, f"oci-archive:{archive}:dev.local/{name}:baked")
    buildah("rm", container)
    run("ctr", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", "images", "import", archive)
    return "baked"


@pytest.mark.parametrize("source", ["bucket", "image"])
def test_a_bundle_comes_from(bundle: Path, tmp_path: Path, source: str) -> None:
    given = in_bucket(bundle) if source == "bucket" else baked(bundle, tmp_path)
    with released(f"from-{source}") as release:
        release.apply(merged(chart.values("breast-cancer"), given))
        chart.wait_ready(f"{release.name}-a")
        tested = release.test()

    assert "Phase:          Succeeded" in tested


def test_payments_answers_with_categories_and_timestamps(tmp_path: Path) -> None:
    run(sys.executable, ROOT / "examples/payments/train.py", tmp_path / "payments")
    with released("payments") as release:
        release.apply(chart.values("payments", releases={"a": chart.on_volume(tmp_path / "payments")}))
        chart.wait_ready("payments-a")
        tested = release.test()

    assert "Phase:          Succeeded" in tested
