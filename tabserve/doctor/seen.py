"""What the doctor has seen of a release: its slots, their workloads and containers, and what belongs to them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from tabserve.doctor.api import Json

_CREDENTIALS = re.compile(
    r"(?P<kept>://)[^/\s@]+@"
    r"|(?P<name>(?i:[\w.-]*(?:secret|password|passwd|token|signature|credential|access_?key)[\w.-]*[\"']?\s*[=:]\s*[\"']?))"
    r"[^\s\"'&,;]+"
)
"""User and password in a URL, and the value after a name such as `password=`."""


class Container(NamedTuple):
    """A container that is not as it should be.

    limits: its limits by resource. said: the end of its log, and of the one before it, and why it ended.
    """

    name: str
    pod: str
    status: Json
    limits: Json
    said: str

    @property
    def waiting(self) -> Json:
        """Why it waits; empty if it does not."""
        return dict(self.status.get("state", {}).get("waiting") or {})

    @property
    def ended(self) -> Json:
        """How it ended, now or before its last start; empty if it never did."""
        states = (self.status.get(which, {}).get("terminated") for which in ("state", "lastState"))
        return dict(next(filter(None, states), {}))

    @property
    def words(self) -> str:
        """The sentence with which a service of ours ended; empty if there is none."""
        return last_words(self.said)


@dataclass(frozen=True)
class Workload:
    """A component of a slot. deployment: None in Knative mode, and before there is one."""

    name: str
    slot: str
    component: str
    deployment: Json | None = None
    pods: Sequence[Json] = ()
    containers: Sequence[Container] = ()

    @property
    def wanted(self) -> int:
        """How many pods there should be."""
        return len(self.pods) if self.deployment is None else int(self.deployment["spec"].get("replicas", 1))

    @property
    def ready(self) -> int:
        """How many of the pods are Ready."""
        return sum(condition(pod, "Ready").get("status") == "True" for pod in self.pods)

    @property
    def whole(self) -> bool:
        """Whether it has as many Ready pods as it should, all of the newest template."""
        if self.deployment is None:
            return self.ready == len(self.pods)
        status = self.deployment.get("status", {})
        current = status.get("observedGeneration", 0) >= self.deployment["metadata"].get("generation", 0)
        updated = status.get("updatedReplicas", 0) >= self.wanted and status.get("replicas", 0) <= self.wanted
        return bool(current and updated and 0 < self.wanted <= self.ready)

    @property
    def refusal(self) -> str:
        """Why Kubernetes makes no pods; empty if it does."""
        found = condition(self.deployment or {}, "ReplicaFailure")
        return str(found.get("message", "")) if found.get("status") == "True" else ""

    @property
    def unplaced(self) -> str:
        """Why no node takes a pod; empty if one does."""
        conditions = (condition(pod, "PodScheduled") for pod in self.pods)
        return next((str(one.get("message", "")) for one in conditions if one.get("status") == "False"), "")


@dataclass(frozen=True)
class Slot:
    """An InferenceService of the release. letter: `a` or `b`."""

    name: str
    letter: str
    service: Json
    workloads: Sequence[Workload]

    @property
    def unready(self) -> str:
        """Why KServe does not call it Ready; empty if it does."""
        ready = condition(self.service, "Ready")
        told = f"{ready.get('reason', '')} {ready.get('message', '')}".strip()
        return "" if ready.get("status") == "True" else told or "not told yet"


class Rollout(NamedTuple):
    """What a gate has come to: its phase, or `damaged`; what it says; percent of the canary, and the canary's slot."""

    phase: str
    told: str
    weight: int | None = None
    slot: str = ""


@dataclass(frozen=True)
class Seen:
    """All that was read.

    release: its Helm release. name: of its objects. others: releases that are in the namespace besides. routes,
    gateways, classes, claims: by name. missing: kinds and names of objects that something names and that are not there.
    events: warnings about the release's objects, the newest last. rollout: None if there is no gate. unread: what the
    user may not read.
    """

    release: str
    namespace: str
    now: datetime
    name: str = ""
    slots: Sequence[Slot] = ()
    others: Sequence[str] = ()
    routes: dict[str, Json] = field(default_factory=dict)
    gateways: dict[str, Json] = field(default_factory=dict)
    classes: dict[str, Json] = field(default_factory=dict)
    claims: dict[str, Json] = field(default_factory=dict)
    autoscalers: Sequence[Json] = ()
    events: Sequence[Json] = ()
    rollout: Rollout | None = None
    missing: frozenset[str] = frozenset()
    unread: Sequence[str] = ()

    @property
    def workloads(self) -> Iterator[Workload]:
        """The workloads of all slots."""
        return (workload for slot in self.slots for workload in slot.workloads)

    def predictor(self, slot: str) -> Workload | None:
        """The predictor of a slot, by its letter."""
        return next((one for one in self.workloads if (one.slot, one.component) == (slot, "predictor")), None)

    def about(self, name: str) -> Iterator[Json]:
        """The warnings about an object, or about those whose names begin with its name."""
        return (one for one in self.events if one["involvedObject"].get("name", "").startswith(name))

    def seconds_since(self, moment: str | None) -> float:
        """The seconds since a time as Kubernetes writes it; none for no time."""
        return (self.now - datetime.fromisoformat(moment)).total_seconds() if moment else 0.0


def condition(found: Json, kind: str) -> Json:
    """A condition of an object; empty if it has none of this type."""
    listed = found.get("status", {}).get("conditions") or []
    return next((dict(one) for one in listed if one.get("type") == kind), {})


def redacted(text: str) -> str:
    """A text without what may be a password, a key or a token."""
    return _CREDENTIALS.sub(lambda found: f"{found['kept'] or found['name']}…{'@' if found['kept'] else ''}", text)


def last_words(said: str) -> str:
    """What a service of ours said when it ended, as the last line of its log; empty if it did not say why."""
    for line in reversed(said.splitlines()):
        if line.startswith("{"):
            try:
                told = json.loads(line)
            except ValueError:
                continue
            if told.get("event") == "start_failed":
                return str(told.get("message", ""))
        for service in ("predictor", "transformer"):
            if line.startswith(f"{service}: "):
                return line.removeprefix(f"{service}: ")
    return ""
