"""`manifests/` without Helm: `kubectl apply -k` of an overlay, and a plain InferenceService on the runtime."""

from __future__ import annotations

import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, kubeconfig
from tests.cluster.load import Target
from tests.cluster.plain import columns, infer, service, serving
from tests.cluster.testbed import api, build
from tests.cluster.testbed.places import PROJECT, STANDARD_PORT
from tests.cluster.testbed.process import run

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster")]
KUBECTL = build.WHEELS.folder / build.KUBECTL
MODEL = "breast-cancer"
OURS = {"app.kubernetes.io/instance": "breast-cancer"}
IMAGES = [
    {"name": f"tabserve-{name}", "newName": f"dev.local/tabserve-{name}", "newTag": "dev"}
    for name in ("predictor", "transformer")
]
"""kustomize looks for images in every kind that has `containers`."""


def kubectl(*command: str | Path) -> str:
    """Run kubectl on the cluster under test."""
    return run(KUBECTL, *command, env={"KUBECONFIG": str(kubeconfig())})


@contextmanager
def applied(folder: Path) -> Generator[None]:
    """Apply a kustomization; it is deleted when the block is left."""
    try:
        kubectl("apply", "-k", folder)
        yield
    finally:
        kubectl("delete", "-k", folder, "--ignore-not-found", "--wait=false")


def own(base: str, tmp_path: Path, slot: chart.Values, **more: str) -> Path:
    """A kustomization of the user's over one of the project's: images, bundle and host; small pods, for two cores and a
    node that does not measure its disk.
    """
    shutil.copytree(PROJECT / "manifests", tmp_path / "manifests")
    changes = {
        r"sha256:0{63}\d": slot["digest"],
        r"pvc://bundles/breast_cancer(-2)?": slot["storageUri"],
        "-default.example.com": f"-{NAMESPACE}.example.com",
        "cpu: 250m": "cpu: 20m",
        r"\n +ephemeral-storage: .+": "",
    }
    for file in (tmp_path / "manifests").glob("*/*.yaml"):
        text = file.read_text()
        for shown, used in changes.items():
            text = re.sub(shown, used, text)
        file.write_text(text)
    folder = tmp_path / "mine"
    folder.mkdir()
    content = {"resources": [f"../manifests/{base}"], "images": IMAGES, **more}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.mark.parametrize(
    ("overlay", "slots", "host", "pods"),
    [
        ("dev", "a", f"breast-cancer-{NAMESPACE}.example.com", 2),
        ("canary", "ab", f"breast-cancer-{NAMESPACE}.example.com", 8),
        ("production", "a", "breast-cancer.models.example.com", 6),
    ],
)
def test_an_overlay_is_applied_and_answers(
    bundle: Path, tmp_path: Path, overlay: str, slots: str, host: str, pods: int
) -> None:
    slot = chart.on_volume(bundle)["bundle"]
    record = expected.record(bundles.load(bundle), 0)
    with applied(own(f"overlays/{overlay}", tmp_path, slot, namespace=NAMESPACE)):
        chart.wait_ready(*(f"breast-cancer-{name}" for name in slots))
        chart.wait_for_pods(pods, OURS)
        target = Target(f"127.0.0.1:{STANDARD_PORT}", host, MODEL, record)
        answers = [target.once() for _ in range(60)]

    assert {answer.status for answer in answers} == {"200"}
    assert all(answer.transformer == answer.predictor != "" for answer in answers)
    assert len({answer.predictor for answer in answers}) == len(slots)


def test_a_plain_inference_service_runs_on_the_runtime(cluster: api.Cluster, bundle: Path, tmp_path: Path) -> None:
    slot = chart.on_volume(bundle)["bundle"]
    record = expected.record(bundles.load(bundle), 0)
    model = {"modelFormat": {"name": "tabserve"}, "protocolVersion": "v2", "storageUri": slot["storageUri"]}
    plain = service(MODEL, "Standard", predictor={"model": model})
    with applied(own("runtime", tmp_path, slot)), serving(cluster, plain) as (host,):
        status, answer, _ = infer(STANDARD_PORT, host, columns(record))

    wanted = bundles.load(bundle).reference.outputs["predict_proba"][0]
    assert (status, answer["model_name"]) == (200, MODEL)
    assert answer["outputs"][0]["data"] == pytest.approx(wanted)
