"""The gate at work: each tick looks at the cluster, lets the gate judge, keeps its state, and moves the route."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias

from tabserve.kubeconfig import Away
from tabserve.rollout import fleet, kube
from tabserve.rollout.checks import TICK_SECONDS
from tabserve.rollout.errors import RolloutError
from tabserve.rollout.gate import Gate, resumed
from tabserve.rollout.kube import CORE, ORDER, STATE, Api, Refused
from tabserve.rollout.ledger import differing
from tabserve.rollout.moving import Mover
from tabserve.rollout.prometheus import courses
from tabserve.rollout.seen import Notice, Seen
from tabserve.rollout.settings import Settings
from tabserve.rollout.shadow import Shadow
from tabserve.rollout.state import State

Object: TypeAlias = dict[str, Any]
STOPPED = 143
"""The exit status of a gate that was stopped by a signal."""
LEAVING_SECONDS = 10.0
"""How long a gate that is stopped takes its route away, which is less than its pod's grace period."""
HISTORY_SECONDS = 24 * 3600
"""How much of Prometheus' history says what stable's pods differ by."""
PODS, MAPS, EVENTS = (CORE, "pods"), (CORE, "configmaps"), (CORE, "events")


class Me(NamedTuple):
    """The gate's own pod, and the Job that it is of."""

    name: str
    uid: str
    job: str
    job_uid: str

    @classmethod
    def variables(cls) -> list[str]:
        """The environment variables that say it."""
        return [f"TABSERVE_{name.upper()}" for name in ("pod", "pod_uid", "job", "job_uid")]


class Runner:
    """A gate in its pod. shadow: makes the receiver of copies. now: a clock in seconds. wait: for so many seconds."""

    def __init__(
        self,
        api: Api,
        settings: Settings,
        me: Me,
        shadow: Callable[[Settings, State], Shadow | None] = lambda *_: None,
        watcher: fleet.Watcher | None = None,
        now: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises RolloutError if another gate moves this release, or the kept state can't be read."""
        self._api, self._settings, self._me, self._now, self._wait = api, settings, me, now, wait
        self._watcher = watcher or fleet.Watcher(settings)
        self._mover = Mover(api, settings, {"name": me.name, "uid": me.uid}, now)
        self._pods: Sequence[Object] = ()
        self._order = ""
        self._last = now()
        self.away = ""
        self.gate = self._begin()
        self._shadow = shadow(settings, self.gate.state)

    def _begin(self) -> Gate:
        kept = kube.kept(self._api, self._settings.namespace, self._settings.name)
        state = resumed(self._settings, kept.state if kept else None)
        if kept:
            self._alone(kept.state.pod)
            if kept.state is not state:
                self._api.patch(MAPS, self._settings.owned, {"metadata": {"annotations": {ORDER: None}}})
        gate = Gate(self._settings, state, _history(self._settings) if state.phase == "wait" else None)
        if state.pod not in ("", self._pod):
            gate.again()
        state.pod, state.job = self._pod, self._settings.job
        return gate

    @property
    def _pod(self) -> str:
        return f"{self._me.name}/{self._me.uid}"

    def _alone(self, other: str) -> None:
        """Raises RolloutError if another pod, which is not about to end, moves this release."""
        name, _, uid = other.partition("/")
        found = self._api.get(PODS, name) if name and uid != self._me.uid else None
        if found is None or found["metadata"]["uid"] != uid or "deletionTimestamp" in found["metadata"]:
            return
        if found["status"].get("phase") in ("Running", "Pending"):
            told = f"pod {name} is already the gate of this release"
            raise RolloutError(f"rollout {self._settings.name}", told, f"Delete pod {name} or its Job first.")

    def run(self, stopped: threading.Event, ticked: Callable[[], None]) -> int:
        """Tick until the rollout has ended; returns the exit status. When it is stopped, the route goes at once.

        Being stopped is no success, so that its Job makes another pod.
        """
        while not stopped.is_set():
            ended = self.tick()
            ticked()
            if ended is not None:
                return ended
            stopped.wait(max(0.0, self._last + TICK_SECONDS - self._now()))
        self._leave()
        return STOPPED

    def tick(self) -> int | None:
        """Look, judge, keep, move; returns the exit status if all is done and nothing is left to do."""
        now = self._now()
        passed, self._last = now - self._last, now
        self._refresh()
        self.gate.tick(self._seen(passed))
        self.gate.state.updated = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            self._keep()
            done = self._mover.move(self.gate.wanted())
            for notice in self.gate.notices:
                self._tell(notice)
        except (Away, Refused) as error:
            self._say_away(str(error))
            return None
        return self.gate.ended() if done else None

    def _refresh(self) -> None:
        """Look at the cluster; what is known already stays if the API server is away."""
        names = ",".join(
            f"{self._settings.name}-{slot.slot}" for slot in (self._settings.stable, self._settings.canary)
        )
        try:
            self._pods = self._api.find(PODS, f"{fleet.SERVICE} in ({names})")
            self._mover.look()
            held = self._api.get(MAPS, self._settings.owned)
            self._order = held["metadata"].get("annotations", {}).get(ORDER, "") if held else ""
            self.away = ""
        except (Away, Refused) as error:
            self._say_away(str(error))

    def _seen(self, passed: float) -> Seen:
        settings = self._settings
        counted = self._watcher.look(self._pods)
        return Seen(
            seconds=passed,
            lacking=fleet.lacking(self._pods, settings.canary, settings),
            route=self._mover.followed,
            canary=counted.canary,
            stable=counted.stable,
            pods=fleet.restarts(self._pods, settings),
            ready=(
                fleet.ready(self._pods, settings.canary, settings),
                fleet.ready(self._pods, settings.stable, settings),
            ),
            by_pod=counted.by_pod,
            steady=counted.steady,
            copies=self._shadow.copies() if self._shadow else None,
            order=self._order,
        )

    def _keep(self) -> None:
        """Write the state. Raises Away."""
        state = self.gate.state
        data = {STATE: state.text(), "phase": state.phase, "weight": str(state.weight), "told": state.told}
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": self._me.job, "uid": self._me.job_uid}
        labels = {"app.kubernetes.io/name": "tabserve", "app.kubernetes.io/managed-by": "tabserve-rollout"}
        metadata = {"name": self._settings.owned, "labels": labels, "ownerReferences": [owner]}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        if not self._api.patch(MAPS, self._settings.owned, body):
            self._api.create(MAPS, body)

    def _tell(self, notice: Notice) -> None:
        """An Event at the canary's InferenceService, and a line in the log. Raises Away."""
        print(f"{self.gate.state.updated} {notice.reason}: {notice.told}", flush=True)
        self._api.create(EVENTS, _event(notice, self._settings))

    def _say_away(self, told: str) -> None:
        if told != self.away:
            print(f"{_utc()} the weight stays: {told}", file=sys.stderr, flush=True)
        self.away = told

    def _leave(self) -> None:
        """Give all traffic back to what the values say, as far as that is possible in the time."""
        until = self._now() + LEAVING_SECONDS
        try:
            self._mover.look()
            while not self._mover.move(None) and self._now() < until:
                self._wait(0.5)
                self._mover.look()
        except (Away, RolloutError) as error:
            self._say_away(str(error))


def _history(settings: Settings) -> float | None:
    """What stable's pods differed by, from Prometheus. Raises RolloutError if it is none."""
    url, name = settings.course.prometheus, settings.service(settings.stable)
    if not url:
        return None
    found = courses(url, f'namespace="{settings.namespace}",pod=~"{name}-.*"', HISTORY_SECONDS)
    return differing(found)


def _event(notice: Notice, settings: Settings) -> Object:
    """The Event at the canary's InferenceService."""
    service, now = f"{settings.name}-{settings.canary.slot}", _utc()
    of = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "name": service}
    return {
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"generateName": f"{service}-rollout-"},
        "involvedObject": of | {"namespace": settings.namespace},
        "reason": notice.reason, "message": notice.told[:1000], "type": "Warning" if notice.warning else "Normal",
        "firstTimestamp": now, "lastTimestamp": now, "count": 1,
        "source": {"component": "tabserve-rollout"}, "reportingComponent": "tabserve-rollout",
    }  # fmt: skip


def _utc() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
