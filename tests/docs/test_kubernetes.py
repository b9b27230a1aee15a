"""docs/kubernetes.md renders: with `helm template` as it is typed there, and as Argo CD and Flux do.

gitops.json holds the schemas of their kinds (argo-cd of 2026-08-22, Flux's controllers of 2026-07-23, Apache-2.0),
without descriptions, and closed, so that an unknown field is an error.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.chart.helm import program
from tests.docs.blocks import consoles, files
from tests.serving import ROOT

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
DIGEST = f"sha256:{'ab' * 32}"
SCHEMAS = json.loads((Path(__file__).parent / "gitops.json").read_text())
KINDS = [
    "v1/Pod",
    "apps/v1/Deployment",
    "serving.kserve.io/v1beta1/InferenceService",
    "gateway.networking.k8s.io/v1/HTTPRoute",
]
"""Kinds that Argo CD names, because it has seen them in the cluster."""


def documents(name: str) -> dict[str, dict[str, Any]]:
    """The objects in one of the page's files, by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all(files(PAGE)[name])}


def rendered(values: dict[str, Any], *options: str) -> list[str]:
    """The kinds that the chart renders, as `helm template` prints them."""
    command: list[str | Path] = [
        program(),
        "template",
        "pump",
        "charts/tabserve",
        "--namespace=factory",
        "--values=-",
        *options,
    ]
    done = subprocess.run(command, cwd=ROOT, input=yaml.safe_dump(values), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [one["kind"] for one in yaml.safe_load_all(done.stdout) if one]


def test_the_page_renders_as_it_is_typed(tmp_path: Path) -> None:
    (line,) = (one.line for block in consoles(PAGE) for one in block if one.line.startswith("helm template"))
    (tmp_path / "values.yaml").write_text(files(PAGE)["values.yaml"])
    path = f"PATH={program().parent}:$PATH DIGEST={DIGEST}; "
    line = line.replace("charts/tabserve", str(ROOT / "charts" / "tabserve"))
    done = subprocess.run(["bash", "-c", path + line], cwd=tmp_path, capture_output=True, text=True)
    kinds = [one["kind"] for one in yaml.safe_load_all((tmp_path / "rendered.yaml").read_text()) if one]

    assert (done.returncode, done.stderr) == (0, "")
    assert kinds.count("InferenceService") == 1


@pytest.mark.parametrize(
    ("name", "kind"), [(file, kind) for file in ("argocd.yaml", "flux.yaml") for kind in documents(file)]
)
def test_the_objects_fit_their_kinds(name: str, kind: str) -> None:
    found = documents(name)[kind]
    schema = SCHEMAS[f"{found['apiVersion']}/{kind}"]

    assert [error.message for error in Draft202012Validator(schema).iter_errors(found)] == []


@pytest.mark.parametrize("percent", [0, 20])
def test_argo_cd_renders_each_step_of_the_page(percent: int) -> None:
    """With the kinds of the cluster, of which it looks nothing up, and as a first install each time."""
    (source, values) = documents("argocd.yaml")["Application"]["spec"]["sources"]
    given = yaml.safe_load(files(PAGE)["values.yaml"])
    given["releases"]["a"]["bundle"]["digest"] = DIGEST
    given["releases"]["b"] = {"bundle": {"storageUri": "s3://models/pump-2", "digest": DIGEST}}
    given["traffic"] = {"canary": "b", "canaryPercent": percent}
    kinds = rendered(given, "--kube-version=1.35", *(f"--api-versions={kind}" for kind in KINDS))

    assert (source["path"], source["helm"]["valueFiles"]) == ("charts/tabserve", [f"${values['ref']}/pump/values.yaml"])
    assert (kinds.count("InferenceService"), kinds.count("HTTPRoute")) == (2, 1)


def test_flux_renders_its_values() -> None:
    release = documents("flux.yaml")["HelmRelease"]["spec"]

    assert (ROOT / release["chart"]["spec"]["chart"] / "Chart.yaml").exists()
    assert rendered(release["values"], "--kube-version=1.35").count("InferenceService") == 1
