"""A namespace `models` with a release `pump` as the Kubernetes API shows it, and ways to break it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tabserve.doctor.api import Absent, Forbidden

Json = dict[str, Any]
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
DIGEST = f"sha256:{'ab' * 32}"
NAMESPACED = "/api/v1/namespaces/models"
SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/models/inferenceservices"
DEPLOYMENTS = "/apis/apps/v1/namespaces/models/deployments"
ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/models/httproutes"
GATEWAY = "/apis/gateway.networking.k8s.io/v1/namespaces/kserve/gateways/kserve-ingress-gateway"
CLASS = "/apis/gateway.networking.k8s.io/v1/gatewayclasses/envoy"
AUTOSCALERS = "/apis/autoscaling/v2/namespaces/models/horizontalpodautoscalers"
CLAIMS = f"{NAMESPACED}/persistentvolumeclaims"
FOLDERS = (SERVICES, DEPLOYMENTS, AUTOSCALERS, f"{NAMESPACED}/pods", f"{NAMESPACED}/events")
SERVICE = "serving.kserve.io/inferenceservice"
TRUE = {"status": "True"}


def ago(seconds: float) -> str:
    """A time as Kubernetes writes it."""
    return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Release:
    """The objects by path, the logs by pod and container, and the kinds that may not be read. asked: every path."""

    def __init__(self, *letters: str) -> None:
        self.objects: dict[str, Json] = {}
        self.logs: dict[tuple[str, str], str] = {}
        self.forbidden: set[str] = set()
        self.asked: list[str] = []
        for letter in letters:
            self._fill(letter)
        self.objects[f"{ROUTES}/pump"] = {
            "metadata": {"name": "pump", "annotations": {"tabserve/stable": "a", "tabserve/canary": "b"}},
            "spec": {"parentRefs": [{"name": "kserve-ingress-gateway", "namespace": "kserve"}]},
            "status": {"parents": [{"conditions": [{"type": "Accepted", **TRUE}, {"type": "ResolvedRefs", **TRUE}]}]},
        }
        self.objects[GATEWAY] = {
            "metadata": {"name": "kserve-ingress-gateway"},
            "spec": {"gatewayClassName": "envoy"},
            "status": {"conditions": [{"type": "Accepted", **TRUE}]},
        }
        self.objects[CLASS] = {"metadata": {"name": "envoy"}}

    def read(self, path: str) -> str:
        """Answer a GET. Raises Absent, Forbidden."""
        self.asked.append(path)
        place, query = urlsplit(path).path, parse_qs(urlsplit(path).query)
        if any(f"/{kind}" in place for kind in self.forbidden):
            raise Forbidden(place)
        if place.endswith("/log"):
            return self._log(place.split("/")[-2], query)
        if place in self.objects:
            return json.dumps(self.objects[place])
        if place not in FOLDERS:
            raise Absent(place)
        listed = [found for at, found in self.objects.items() if at.startswith(f"{place}/")]
        labels, fields = (query.get(kind, [""])[0] for kind in ("labelSelector", "fieldSelector"))
        return json.dumps({"items": [one for one in listed if _selected(one, labels) and _matches(one, fields)]})

    def _log(self, pod: str, query: dict[str, list[str]]) -> str:
        found = (pod, query["container"][0] + (" before" if "previous" in query else ""))
        if found not in self.logs:
            raise Absent(pod)
        return self.logs[found]

    def _fill(self, letter: str) -> None:
        name = f"pump-{letter}"
        spec = {"labels": {"tabserve/slot": letter}}
        self.objects[f"{SERVICES}/{name}"] = {
            "metadata": {
                "name": name,
                "labels": {"app.kubernetes.io/instance": "pump"},
                "annotations": {"tabserve/release": f"release-{letter}"},
                "creationTimestamp": ago(3600),
            },
            "spec": {"predictor": dict(spec, model={"storageUri": "s3://models/pump"}), "transformer": dict(spec)},
            "status": {"conditions": [{"type": "Ready", **TRUE}]},
        }
        self.objects[f"{NAMESPACED}/services/{name}-predictor-pods"] = {"metadata": {"name": f"{name}-predictor-pods"}}
        for component in ("predictor", "transformer"):
            self._deploy(name, component)

    def _deploy(self, service: str, component: str) -> None:
        name, labels = f"{service}-{component}", {SERVICE: service, "component": component}
        status = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "conditions": []}
        self.objects[f"{DEPLOYMENTS}/{name}"] = {
            "metadata": {"name": name, "labels": labels, "generation": 1, "creationTimestamp": ago(3600)},
            "spec": {"replicas": 1},
            "status": status,
        }
        running = {"name": "kserve-container", "ready": True, "restartCount": 0, "state": {"running": {}}}
        self.objects[f"{NAMESPACED}/pods/{name}-x"] = {
            "metadata": {"name": f"{name}-x", "labels": labels, "creationTimestamp": ago(3600)},
            "spec": {"containers": [{"name": "kserve-container", "resources": {"limits": {"memory": "1Gi"}}}]},
            "status": {
                "conditions": [{"type": "Ready", **TRUE, "lastTransitionTime": ago(3000)}],
                "containerStatuses": [running],
            },
        }

    def deployment(self, workload: str) -> Json:
        """A workload's Deployment."""
        return self.objects[f"{DEPLOYMENTS}/{workload}"]

    def pod(self, workload: str) -> Json:
        """A workload's only pod."""
        return self.objects[f"{NAMESPACED}/pods/{workload}-x"]

    def stop(self, workload: str, **container: Any) -> None:
        """Let a workload's container be not ready, with this status."""
        self.deployment(workload)["status"]["readyReplicas"] = 0
        status = self.pod(workload)["status"]
        status["conditions"] = [{"type": "Ready", "status": "False"}]
        status["containerStatuses"][0] |= {"ready": False, **container}

    def end(self, workload: str, problem: str, *before: str) -> None:
        """Let a workload's service end with these words."""
        last = {"level": "critical", "service": "predictor", "event": "start_failed", "message": problem}
        state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
        ended = {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": ago(5)}}
        self.stop(workload, state=state, lastState=ended, restartCount=2)
        self.logs[f"{workload}-x", "kserve-container"] = "\n".join((*before, json.dumps(last))) + "\n"

    def fetch(self, workload: str, *lines: str) -> None:
        """Let a workload's storage initializer end with these lines."""
        self.stop(workload, state={"waiting": {"reason": "PodInitializing"}})
        ended = {"exitCode": 1, "reason": "Error", "message": "\n".join(lines)}
        failed = {"name": "storage-initializer", "restartCount": 1, "state": {"terminated": ended}}
        self.pod(workload)["status"]["initContainerStatuses"] = [failed]

    def refuse(self, workload: str, message: str) -> None:
        """Let Kubernetes make none of a workload's pods."""
        del self.objects[f"{NAMESPACED}/pods/{workload}-x"]
        failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
        self.deployment(workload)["status"] = {"observedGeneration": 1, "conditions": [failure]}

    def unplace(self, workload: str, message: str) -> None:
        """Let no node take a workload's pod."""
        self.stop(workload, state={"waiting": {"reason": "ContainerCreating"}})
        status = self.pod(workload)["status"]
        del status["containerStatuses"]
        unplaced = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        status["conditions"] = [unplaced]

    def warn(self, about: str, message: str, reason: str = "Failed", kind: str = "Pod", level: str = "Warning") -> None:
        """An event about an object."""
        path = f"{NAMESPACED}/events/{len(self.objects)}"
        self.objects[path] = {
            "metadata": {"name": str(len(self.objects))},
            "type": level,
            "reason": reason,
            "message": message,
            "involvedObject": {"kind": kind, "name": about},
            "lastTimestamp": ago(10),
        }


def _matches(found: Json, selector: str) -> bool:
    place, _, wanted = selector.partition("=")
    for key in filter(None, place.split(".")):
        found = found[key]
    return not selector or str(found) == wanted


def _selected(found: Json, selector: str) -> bool:
    labels = found["metadata"].get("labels", {})
    if many := re.fullmatch(r"(\S+) in \((.*)\)", selector):
        return labels.get(many[1]) in many[2].split(",")
    return not selector or labels.get(selector.partition("=")[0]) == selector.partition("=")[2]
