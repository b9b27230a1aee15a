"""The add-ons of the cluster, one module each, whose `objects` returns what is applied."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.testbed.api import Object
from tests.cluster.testbed.build import HELM3, KUBERNETES
from tests.cluster.testbed.process import run


def chart(folder: Path, release: str, namespace: str, values: Object, *flags: str) -> list[Object]:
    """The objects that a Helm chart renders to."""
    rendered = run(
        HELM3.folder / "helm", "template", release, folder, "--namespace", namespace, "--kube-version", KUBERNETES,
        "--values", "-", *flags, stdin=yaml.safe_dump(values),
    )  # fmt: skip
    return [item for item in yaml.safe_load_all(rendered) if item]


def namespace(name: str, **labels: str) -> Object:
    """A Namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def containers(workload: Object) -> list[Object]:
    """The containers of a Deployment or a Job."""
    found: list[Object] = workload["spec"]["template"]["spec"]["containers"]
    return found


def small(objects: Iterable[Object]) -> list[Object]:
    """Workloads for a machine of two cores that is busy with tests.

    Each container asks for a little CPU, so that a loaded model can't starve it, and has no limit that throttles it.
    They have no liveness probes, because being slow on a busy machine is no reason for a restart.
    """
    listed = list(objects)
    for workload in (item for item in listed if item["kind"] in ("Deployment", "Job")):
        for container in containers(workload):
            container["resources"] = {"requests": {"cpu": "25m"}}
            container.pop("livenessProbe", None)
    return listed


def node_port(name: str, namespace: str, selector: dict[str, str], target: int | str, port: int) -> Object:
    """A Service that opens a port on 127.0.0.1 for the selected pods."""
    ports: list[dict[str, Any]] = [{"name": "http", "port": 80, "targetPort": target, "nodePort": port}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": "NodePort", "selector": selector, "ports": ports},
    }
