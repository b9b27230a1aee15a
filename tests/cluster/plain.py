"""Plain InferenceServices with the service images, written by hand as in KServe's documentation, without the chart."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.cluster.testbed import api
from tests.cluster.testbed.places import BUCKET, S3, VOLUME

NAMESPACE = "models"
SERVING = "serving.kserve.io/v1beta1"
MODEL = "breast-cancer"
BUNDLE = "smoke"  # the bundle's name in the bucket and on the volume
READY_SECONDS = 150

# What Pod Security `restricted` requires of every container.
RESTRICTED = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def publish(bundle: Path) -> None:
    """Put a bundle into the bucket and onto the volume."""
    for place in (S3 / BUCKET, VOLUME):
        shutil.copytree(bundle, place / BUNDLE, dirs_exist_ok=True)


def container(component: str, name: str = "kserve-container", release: str = "", **more: Any) -> api.Object:
    """A container of one of our services, on one port as Knative requires."""
    return {
        "name": name,
        "image": f"dev.local/tabserve-{component}:dev",
        "args": ["--model_dir=/mnt/models", f"--model_name={MODEL}", "--http_port=8080", "--grpc_port=0"],
        "env": [{"name": "TABSERVE_RELEASE", "value": release}] if release else [],
        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": f"/v2/models/{MODEL}/ready", "port": 8080}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "50m", "memory": "150Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
        "securityContext": RESTRICTED,
        **more,
    }


def from_s3(component: str, release: str = "", **more: Any) -> api.Object:
    """A component whose bundle KServe's storage initializer fetches from the bucket."""
    served = container(component, release=release)
    served["env"] = [*served["env"], {"name": "STORAGE_URI", "value": f"s3://{BUCKET}/{BUNDLE}"}]
    pod = {"seccompProfile": {"type": "RuntimeDefault"}}  # for the initializer, whose own settings do not have it
    return {"containers": [served], "serviceAccountName": "s3-reader", "securityContext": pod, **more}


def from_volume(component: str, release: str = "", **more: Any) -> api.Object:
    """A component that finds its bundle on the volume."""
    mounts = [{"name": "bundles", "mountPath": "/mnt/models", "subPath": BUNDLE, "readOnly": True}]
    volumes = [{"name": "bundles", "persistentVolumeClaim": {"claimName": "bundles", "readOnly": True}}]
    return {"containers": [container(component, release=release, volumeMounts=mounts)], "volumes": volumes, **more}


def service(name: str, mode: str, **components: api.Object) -> api.Object:
    """An InferenceService with a predictor, and a transformer if one is given."""
    annotations = {"serving.kserve.io/deploymentMode": mode}
    metadata = {"name": name, "namespace": NAMESPACE, "annotations": annotations}
    return {"apiVersion": SERVING, "kind": "InferenceService", "metadata": metadata, "spec": components}


@contextmanager
def serving(cluster: api.Cluster, *services: api.Object) -> Generator[list[str]]:
    """The host names of Ready InferenceServices, which are deleted when the block is left."""
    names = [item["metadata"]["name"] for item in services]
    try:
        cluster.apply(*services)
        for name in names:
            wait_ready(cluster, name)
        yield [host(cluster, name) for name in names]
    finally:
        for name in names:
            cluster.delete(SERVING, "InferenceService", name, NAMESPACE)
        for name in names:
            gone(cluster, name)


def wait_ready(cluster: api.Cluster, name: str) -> None:
    """Wait until an InferenceService is Ready in its newest generation."""

    def lacking() -> str:
        item = cluster.get(SERVING, "InferenceService", name, NAMESPACE)
        if item.get("status", {}).get("observedGeneration") != item["metadata"]["generation"]:
            return "the newest generation was not looked at yet"
        return api.condition(item, "Ready")

    api.wait(f"InferenceService {name}", lacking, READY_SECONDS, lambda: cluster.explain(NAMESPACE))


def gone(cluster: api.Cluster, name: str) -> None:
    """Wait until an InferenceService that was deleted has gone."""

    def lacking() -> str:
        return "still there" if cluster.exists(SERVING, "InferenceService", name, NAMESPACE) else ""

    api.wait(f"deletion of {name}", lacking, READY_SECONDS, lambda: cluster.explain(NAMESPACE))


def host(cluster: api.Cluster, name: str) -> str:
    """The host name of an InferenceService."""
    url: str = cluster.get(SERVING, "InferenceService", name, NAMESPACE)["status"]["url"]
    return url.partition("://")[2]


def infer(port: int, host: str, body: dict[str, Any]) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Send one V2 request through a gateway on loopback; returns status, decoded body, headers."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", f"/v2/models/{MODEL}/infer", json.dumps(body), {"Host": host})
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text.startswith(b"{") else {}, dict(response.getheaders())
    finally:
        connection.close()


def columns(record: dict[str, Any]) -> dict[str, Any]:
    """A record of numbers as a V2 request with an input per field."""
    return {
        "inputs": [{"name": name, "datatype": "FP64", "shape": [1], "data": [value]} for name, value in record.items()]
    }
