"""Read a release's objects, events and the ends of its logs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from tabserve.doctor.api import Absent, Forbidden, Json, Read, decoded
from tabserve.doctor.seen import Container, Rollout, Seen, Slot, Workload, redacted
from tabserve.rollout.errors import RolloutError
from tabserve.rollout.kube import STATE
from tabserve.rollout.state import parse

SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices"
ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes"
GATEWAYS = "/apis/gateway.networking.k8s.io/v1/namespaces/{}/gateways"
CLASSES = "/apis/gateway.networking.k8s.io/v1/gatewayclasses"
DEPLOYMENTS = "/apis/apps/v1/namespaces/{}/deployments"
AUTOSCALERS = "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers"
CORE = "/api/v1/namespaces/{}/"
_INSTANCE, _SERVICE = "app.kubernetes.io/instance", "serving.kserve.io/inferenceservice"
_MOST_PODS = 3
"""Pods of a workload whose logs are read: the newest."""
_MOST_EVENTS = 500
_LOG = {"tailLines": 60, "limitBytes": 20_000}
_NO_LOG = {"ContainerCreating", "PodInitializing", "ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError"}
"""Why a container waits that has not run."""
_CLAIM = re.compile(r"pvc://([^/]+)").match


def look(read: Read, namespace: str, release: str, now: datetime) -> Seen:
    """All that can be read of a release. Raises OSError if the cluster does not answer."""
    return _Look(read, namespace, release, now).seen()


class _Objects:
    """Objects of a namespace; notes what is missing, and what may not be read."""

    def __init__(self, read: Read, namespace: str) -> None:
        self._read, self._get, self._namespace = read, decoded(read), namespace
        self.missing: set[str] = set()
        self.unread: dict[str, None] = {}

    def named(self, kind: str, folder: str, names: Iterable[str], needed: bool = True) -> dict[str, Json]:
        """Objects by name. needed: whether one that is not there is missing."""
        folder = folder.format(self._namespace)
        found = {name: self.one(f"{kind} {name}" if needed else "", f"{folder}/{quote(name)}") for name in names}
        return {name: one for name, one in found.items() if one is not None}

    def one(self, called: str, path: str) -> Json | None:
        """An object, None if there is none, or it may not be read. called: its name among what is missing, or empty."""
        try:
            return self._get(path)
        except Absent:
            if called:
                self.missing.add(called)
        except Forbidden:
            self.unread[path.rpartition("/")[0].rpartition("/")[2]] = None
        return None

    def list(self, folder: str, selector: str = "", **query: Any) -> list[Json]:
        """Objects of a kind; none if the cluster does not know the kind, or they may not be read."""
        path = folder.format(self._namespace)
        query |= {"labelSelector": selector} if selector else {}
        try:
            items: list[Json] = self._get(f"{path}?{urlencode(query)}" if query else path)["items"]
        except Absent:
            return []
        except Forbidden:
            self.unread[path.rpartition("/")[2]] = None
            return []
        return items

    def log(self, pod: str, container: str, **more: str) -> str:
        """The end of a container's log; empty if there is none, or it may not be read."""
        query = urlencode({"container": container, **_LOG, **more})
        path = f"{CORE.format(self._namespace)}pods/{quote(pod)}/log"
        try:
            return self._read(f"{path}?{query}")
        except Absent:
            return ""
        except Forbidden:
            self.unread["logs of pods"] = None
            return ""


class _Look:
    """One look at a release."""

    def __init__(self, read: Read, namespace: str, release: str, now: datetime) -> None:
        self._objects = _Objects(read, namespace)
        self._namespace, self._release, self._now = namespace, release, now

    def seen(self) -> Seen:
        """Everything, once."""
        listed = self._objects.list(SERVICES)
        own = [one for one in listed if _labels(one).get(_INSTANCE) == self._release]
        others = {_labels(one).get(_INSTANCE, "") for one in listed} - {self._release, ""}
        if not own:
            return Seen(
                self._release, self._namespace, self._now, others=sorted(others), unread=[*self._objects.unread]
            )
        slots = self._slots(own)
        name = slots[0].name.removesuffix(f"-{slots[0].letter}") if _is_standard(own[0]) else slots[0].name
        routes = self._objects.named("HTTPRoute", ROUTES, [name, f"{name}-rollout"], needed=False)
        gateways, classes = self._gateways(routes)
        claims = self._claims(own, slots)
        workloads = [workload.name for slot in slots for workload in slot.workloads]
        return Seen(
            self._release,
            self._namespace,
            self._now,
            name,
            slots,
            sorted(others),
            routes,
            gateways,
            classes,
            claims,
            [one for one in self._objects.list(AUTOSCALERS) if _labels(one).get(_INSTANCE) == self._release],
            self._events([name, *workloads], claims),
            self._rollout(name),
            frozenset(self._objects.missing),
            [*self._objects.unread],
        )

    def _slots(self, services: list[Json]) -> list[Slot]:
        names = ",".join(one["metadata"]["name"] for one in services)
        deployments = self._objects.list(DEPLOYMENTS, f"{_SERVICE} in ({names})")
        pods = self._objects.list(CORE + "pods", f"{_SERVICE} in ({names})")
        return [self._slot(one, deployments, pods) for one in services]

    def _slot(self, service: Json, deployments: list[Json], pods: list[Json]) -> Slot:
        name, spec = service["metadata"]["name"], service["spec"]
        letter = spec.get("predictor", {}).get("labels", {}).get("tabserve/slot", "")
        found = []
        for component in ("predictor", "transformer"):
            if component in spec:
                called = f"{name}-{component}"
                deployment = next((one for one in deployments if one["metadata"]["name"] == called), None)
                own = [pod for pod in pods if _is_of(pod, name, component)]
                found.append(Workload(called, letter, component, deployment, own, self._containers(own)))
        if letter and _is_standard(service) and "transformer" in spec:
            self._objects.named("Service", CORE + "services", [f"{name}-predictor-pods"])
        return Slot(name, letter, service, found)

    def _containers(self, pods: list[Json]) -> list[Container]:
        """The containers of the newest pods that do not run as they should, with what they said."""
        newest = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))[-_MOST_PODS:]
        found = []
        for pod in newest:
            limits = {
                one["name"]: one.get("resources", {}).get("limits", {})
                for part in ("initContainers", "containers")
                for one in pod["spec"].get(part, [])
            }
            for status in _troubled(pod):
                said = self._said(pod["metadata"]["name"], status)
                found.append(
                    Container(status["name"], pod["metadata"]["name"], status, limits.get(status["name"], {}), said)
                )
        return found

    def _said(self, pod: str, status: Json) -> str:
        ends = [status.get(which, {}).get("terminated") or {} for which in ("lastState", "state")]
        parts = [end["message"] for end in ends if end.get("message")]
        reason = (status.get("state", {}).get("waiting") or {}).get("reason")
        if status.get("restartCount"):
            parts.append(self._objects.log(pod, status["name"], previous="true"))
        if reason not in _NO_LOG:
            parts.append(self._objects.log(pod, status["name"]))
        return redacted("\n".join(parts))

    def _gateways(self, routes: dict[str, Json]) -> tuple[dict[str, Json], dict[str, Json]]:
        """The Gateways that routes name, by namespace and name, and their classes."""
        places = {
            (parent.get("namespace", self._namespace), parent["name"])
            for route in routes.values()
            for parent in route["spec"].get("parentRefs", [])
            if parent.get("kind", "Gateway") == "Gateway"
        }
        found = {}
        for namespace, name in sorted(places):
            called = f"{namespace}/{name}"
            one = self._objects.one(f"Gateway {called}", f"{GATEWAYS.format(quote(namespace))}/{quote(name)}")
            if one is not None:
                found[called] = one
        names = sorted({one["spec"]["gatewayClassName"] for one in found.values()})
        return found, self._objects.named("GatewayClass", CLASSES, names)

    def _claims(self, services: list[Json], slots: list[Slot]) -> dict[str, Json]:
        """The PersistentVolumeClaims that bundles and pods name."""
        places = [part.get("model", {}).get("storageUri") or "" for one in services for part in _parts(one)]
        volumes = [volume for one in services for part in _parts(one) for volume in part.get("volumes", [])]
        pods = [pod for slot in slots for workload in slot.workloads for pod in workload.pods]
        volumes += [volume for pod in pods for volume in pod["spec"].get("volumes", [])]
        names = {found[1] for place in places if (found := _CLAIM(place))}
        names |= {claim["claimName"] for volume in volumes if (claim := volume.get("persistentVolumeClaim"))}
        return self._objects.named("PersistentVolumeClaim", CORE + "persistentvolumeclaims", sorted(names))

    def _rollout(self, name: str) -> Rollout | None:
        """What the gate's ConfigMap says; None if there is none."""
        found = self._objects.one("", f"{CORE.format(self._namespace)}configmaps/{quote(name)}-rollout")
        if found is None:
            return None
        try:
            state = parse(found.get("data", {}).get(STATE, ""), f"ConfigMap {name}-rollout")
        except RolloutError as error:
            return Rollout("damaged", str(error))
        return Rollout(state.phase, state.told, state.weight, state.canary.slot)

    def _events(self, names: Iterable[str], claims: Collection[str]) -> list[Json]:
        """The warnings about objects whose names begin with these, and what is told of claims; the newest last."""
        warnings = self._objects.list(CORE + "events", fieldSelector="type=Warning", limit=_MOST_EVENTS)
        own = [one for one in warnings if one["involvedObject"].get("name", "").startswith(tuple(names))]
        if claims:
            told = self._objects.list(CORE + "events", fieldSelector="involvedObject.kind=PersistentVolumeClaim")
            own += [one for one in told if one["involvedObject"].get("name") in claims]
        return sorted(own, key=_when)


def _troubled(pod: Json) -> Iterator[Json]:
    """The statuses of containers that failed, wait or are not ready, and of those that were killed."""
    status = pod.get("status", {})
    for one in status.get("initContainerStatuses", []):
        if one.get("restartCount") or _failed(one):
            yield one
    for one in status.get("containerStatuses", []):
        if not one.get("ready") or one.get("restartCount"):
            yield one


def _failed(status: Json) -> bool:
    state = status.get("state", {})
    ended = (state.get("terminated") or {}).get("exitCode", 0)
    return bool(ended or (state.get("waiting") or {}).get("reason") not in (None, "PodInitializing"))


def _is_of(pod: Json, service: str, component: str) -> bool:
    labels = _labels(pod)
    own = (labels.get(_SERVICE), labels.get("component")) == (service, component)
    return bool(own and "deletionTimestamp" not in pod["metadata"])


def _labels(found: Json) -> dict[str, str]:
    labels: dict[str, str] = found["metadata"].get("labels") or {}
    return labels


def _parts(service: Json) -> Iterator[Json]:
    return (part for part in service["spec"].values() if isinstance(part, dict))


def _is_standard(service: Json) -> bool:
    annotations: dict[str, str] = service["metadata"].get("annotations") or {}
    return annotations.get("serving.kserve.io/deploymentMode", "Standard") == "Standard"


def _when(event: Json) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")
