"""Render `manifests/` from the chart: `base/` is the stable slot and the route, `canary/` only the other slot."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "manifests"
KUBERNETES = "v1.35.4"
HELM_ONLY = ("helm.sh/chart", "app.kubernetes.io/managed-by")
Object = dict[str, Any]


def rendered(helm: str) -> list[Object]:
    """The chart's objects, without Helm's own labels and the test."""
    command: list[str | Path] = [helm, "template", "breast-cancer", ROOT / "charts" / "tabserve"]
    options: list[str | Path] = ["--values", FOLDER / "values.yaml", "--kube-version", KUBERNETES]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    objects = [item for item in yaml.safe_load_all(done.stdout) if item]
    return [plain(item) for item in objects if not item["metadata"]["name"].endswith("-test")]


def plain(item: Object) -> Object:
    """An object as if written by hand, without a namespace and Helm's labels."""
    del item["metadata"]["namespace"]
    for label in HELM_ONLY:
        del item["metadata"]["labels"][label]
    return item


def cluster_runtime(runtime: Object) -> Object:
    """A ClusterServingRuntime for a plain InferenceService with `modelFormat: tabserve`: no release, no digest."""
    found = copy.deepcopy(runtime)
    found["kind"] = "ClusterServingRuntime"
    found["metadata"] = {"name": "tabserve", "labels": {"app.kubernetes.io/name": "tabserve"}}
    found["spec"]["supportedModelFormats"] = [{"name": "tabserve", "version": "1", "autoSelect": True}]
    (container,) = found["spec"]["containers"]
    container["args"] = ["--model_name={{.Name}}", *container["args"][1:]]
    del container["env"]
    return found


def contents(helm: str) -> dict[str, list[Object]]:
    """What each written file holds, by its path below `manifests/`."""
    objects = rendered(helm)
    canary = [item for item in objects if item["metadata"]["name"].startswith("breast-cancer-b")]
    runtimes = [item for item in objects if item["kind"] == "ServingRuntime"]
    return {
        "base/tabserve.yaml": [item for item in objects if item not in canary],
        "canary/tabserve.yaml": canary,
        "runtime/clusterservingruntime.yaml": [cluster_runtime(runtimes[0])],
    }


def text(objects: list[Object]) -> str:
    """Objects as YAML text."""
    return "# Rendered by `make manifests`.\n" + yaml.safe_dump_all(objects, sort_keys=False, width=120)


def main() -> None:
    """Write the files, using the given Helm."""
    for path, objects in contents(sys.argv[1]).items():
        (FOLDER / path).write_text(text(objects))


if __name__ == "__main__":
    main()
