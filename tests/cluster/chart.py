"""Helm releases of the project's chart in the cluster under test, and what they need: bundles, waits, deletions."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.cluster.testbed import api, build
from tests.cluster.testbed.places import KUBECONFIG, PROJECT, VOLUME
from tests.cluster.testbed.process import run

CHART = PROJECT / "charts" / "tabserve"
NAMESPACE = "models"
SERVING = "serving.kserve.io/v1beta1"
READY_SECONDS = 180.0
FEATURES = ["multi-container-probing", "kubernetes.podspec-securitycontext"]
"""The Knative flags that are on in the cluster under test, for `knative.features`."""
Values = dict[str, Any]


def kubeconfig() -> Path:
    """The kubeconfig of the cluster under test."""
    return Path(os.environ.get("TABSERVE_KUBECONFIG") or KUBECONFIG)


@cache
def connect() -> api.Cluster:
    """The API of the cluster under test."""
    return api.Cluster(kubeconfig())


def merged(base: Values, changes: Mapping[str, Any]) -> Values:
    """Values with others over them, joined as in Helm: maps key by key."""
    joined = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(joined.get(key), Mapping)
        joined[key] = merged(joined[key], value) if both else value
    return joined


# Small pods that drain fast: the cluster under test has two cores, and its tests little time.
SMALL = {
    "resources": {"requests": {"cpu": "20m", "memory": "150Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
    "autoscaling": {"enabled": False},
    "replicas": 1,
    "probes": {"readinessPeriodSeconds": 1},
    "preStopSeconds": 6,
}


# The node does not measure its disk, so a pod that asks for some of it finds no node.
NO_DISK = {"resources": {kind: {"ephemeral-storage": None} for kind in ("requests", "limits")}}


def values(model: str, **changes: Any) -> Values:
    """Values of a release with the images under test."""
    images = {name: {"repository": f"dev.local/tabserve-{name}", "tag": "dev"} for name in ("predictor", "transformer")}
    base = {"modelName": model, "pods": NO_DISK} | {
        name: merged({"image": image}, SMALL) for name, image in images.items()
    }
    return merged(base, changes)


def on_volume(folder: Path) -> Values:
    """Put a bundle, which may be broken, on the PersistentVolume `bundles`; returns its place, for `releases`."""
    digest = f"sha256:{hashlib.sha256((folder / 'bundle.json').read_bytes()).hexdigest()}"
    name = f"{folder.name}-{digest[7:19]}".replace("_", "-")
    shutil.copytree(folder, VOLUME / name, dirs_exist_ok=True)
    return {"bundle": {"storageUri": f"pvc://bundles/{name}", "digest": digest}}


def next_version(bundle: Path, folder: Path) -> Path:
    """A copy of a bundle as version 2: the same answers, but another digest and so another release."""
    shutil.copytree(bundle, folder)
    manifest = folder / "bundle.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version": "2"}))
    return folder


@dataclass(frozen=True)
class Release:
    """A Helm release of the chart."""

    name: str
    helm: Path
    namespace: str = NAMESPACE

    def run(self, *command: str | Path, given: Values | None = None) -> str:
        """Run a helm command in the namespace, with values on standard input. Raises CommandFailed."""
        options = ("--values", "-") if given is not None else ()
        stdin = json.dumps(given) if given is not None else None
        return run(self.helm, *command, "--namespace", self.namespace, *options,
                   env={"KUBECONFIG": str(kubeconfig())}, stdin=stdin)  # fmt: skip

    def apply(self, given: Values, *flags: str) -> str:
        """Run `helm upgrade --install` with exactly these values; returns what it printed."""
        return self.run("upgrade", self.name, CHART, "--install", *flags, given=given)

    def refusal(self, given: Values, *flags: str) -> str:
        """The error of an upgrade that must be refused."""
        command: list[str | Path] = [
            self.helm,
            "upgrade",
            self.name,
            CHART,
            "--install",
            "--namespace",
            self.namespace,
            "--values",
            "-",
            *flags,
        ]
        done = subprocess.run(command, input=json.dumps(given), text=True, capture_output=True, check=False,
                              env={**os.environ, "KUBECONFIG": str(kubeconfig())})  # fmt: skip
        assert done.returncode != 0, f"expected a refusal, got:\n{done.stdout}"
        return done.stderr

    def test(self) -> str:
        """Run `helm test`; returns what its pod printed."""
        return self.run("test", self.name, "--timeout", "200s")

    def uninstall(self) -> None:
        """Run `helm uninstall`, and wait until all its objects have been deleted; pods may still drain."""
        self.run("uninstall", self.name, "--ignore-not-found")


def explain() -> str:
    """What is wrong in the namespace of the releases."""
    return connect().explain(NAMESPACE)


def left(release: str) -> str:
    """The objects of a Helm release, and KServe's objects for it, that still exist."""
    kinds = [("v1", "Pod"), ("v1", "Service"), ("apps/v1", "Deployment"), (SERVING, "InferenceService")]
    labels = {"app.kubernetes.io/instance": release}
    found = [item for version, kind in kinds for item in connect().find(version, kind, NAMESPACE, **labels)]
    return ", ".join(item["metadata"]["name"] for item in found)


@contextmanager
def released(name: str, helm: Path = build.HELM3.folder / "helm") -> Generator[Release]:
    """A Helm release that is uninstalled when the block is left, whatever happened in it."""
    release = Release(name, helm)
    try:
        yield release
    finally:
        release.uninstall()


def wait_ready(*services: str, seconds: float = READY_SECONDS) -> None:
    """Wait until InferenceServices are Ready, with all pods of the newest generation."""

    def lacking() -> str:
        return "; ".join(filter(None, map(unready, services)))

    api.wait(f"InferenceService {', '.join(services)}", lacking, seconds, explain)


def unready(name: str) -> str:
    """Why an InferenceService is not Ready, or which of its Deployments are incomplete."""
    item = connect().get(SERVING, "InferenceService", name, NAMESPACE)
    labels = {"serving.kserve.io/inferenceservice": name}
    owned = connect().find("apps/v1", "Deployment", NAMESPACE, **labels)
    return api.condition(item, "Ready") or ", ".join(filter(None, map(incomplete, owned)))


def incomplete(deployment: api.Object) -> str:
    """What is missing until a Deployment is rolled out."""
    status, wanted = deployment.get("status", {}), deployment["spec"]["replicas"]
    current = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    ready = min(status.get("updatedReplicas", 0), status.get("readyReplicas", 0))
    done = current and ready >= wanted and status.get("replicas", 0) == wanted
    return "" if done else f"{deployment['metadata']['name']} {ready}/{wanted}"


def release_of(service: str) -> str:
    """The release id that an InferenceService was given."""
    annotations: dict[str, str] = connect().get(SERVING, "InferenceService", service, NAMESPACE)["metadata"][
        "annotations"
    ]
    return annotations["tabserve/release"]


def kill(pod: str) -> None:
    """End a pod without a grace period."""
    connect().request("DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}?gracePeriodSeconds=0")


def staying(**labels: str) -> list[api.Object]:
    """The pods that carry these labels and are not being deleted."""
    found = connect().find("v1", "Pod", NAMESPACE, **labels)
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def pods(**labels: str) -> list[str]:
    """Names of the pods that carry these labels and are not being deleted."""
    return [pod["metadata"]["name"] for pod in staying(**labels)]


def ready_pods(**labels: str) -> list[str]:
    """Names of the pods with these labels that are Ready."""
    return [pod["metadata"]["name"] for pod in staying(**labels) if api.condition(pod, "Ready") == ""]


def wait_for_pods(count: int, labels: Mapping[str, str], seconds: float = 120) -> None:
    """Wait until `count` pods with these labels are Ready."""
    api.wait(f"{count} pods", lambda: "" if len(ready_pods(**labels)) == count else "not", seconds, explain)
