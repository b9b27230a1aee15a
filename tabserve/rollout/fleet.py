"""The pods of both slots: which are there, whether they are Ready, and what they have counted since the last tick."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

from tabserve.rollout.errors import RolloutError
from tabserve.rollout.scrape import Scrape, Series, Tally, read, since, tally
from tabserve.rollout.settings import Settings
from tabserve.rollout.state import Pod, Slot

Object: TypeAlias = dict[str, Any]
SERVICE = "serving.kserve.io/inferenceservice"
ADMIN_PORT = 8082
OLDEST_TICKS = 3
"""What a pod counted since an older look is thrown away."""
STEADY_LOOKS = 2
"""So many looks in a row must have found the same pods before the slots' shares of the requests are compared."""
_READERS = 8
_SECONDS = 5.0


class Fleet:
    """Looks at pods, and gives what each has counted since the last look at it."""

    def __init__(self) -> None:
        self._looks: dict[str, tuple[int, Scrape]] = {}
        self._listed: set[str] | None = None
        self._tick = 0
        self.whole = False
        """Whether the last look found the pods of the one before, and everything that they have counted since."""

    def counted(self, pages: Mapping[str, Scrape | None]) -> dict[str, dict[Series, float]]:
        """What each pod has counted since the last tick, by name. pages: None for one that did not answer.

        The first look at all counts nothing, and neither does one at a pod that did not answer for long. All that a pod
        has counted belongs to the tick in which it came.
        """
        self._tick += 1
        self.whole = {*pages} == self._listed and all(self._goes_on(name, page) for name, page in pages.items())
        found = {name: self._since(name, page) for name, page in pages.items() if page is not None}
        self._looks = {name: look for name, look in self._looks.items() if name in pages}
        self._looks |= {name: (self._tick, page) for name, page in pages.items() if page is not None}
        self._listed = {*pages}
        return found

    def _goes_on(self, name: str, page: Scrape | None) -> bool:
        """Whether a pod answered this look, in the process that answered the last one."""
        at, old = self._looks.get(name, (0, None))
        return page is not None and old is not None and at == self._tick - 1 and old.start == page.start

    def _since(self, name: str, page: Scrape) -> dict[Series, float]:
        at, old = self._looks.get(name, (0, None))
        if old is not None:
            return since(page, old) if self._tick - at <= OLDEST_TICKS else {}
        return {} if self._listed is None or name in self._listed else since(page, None)


class Counted(NamedTuple):
    """What both slots counted in a tick, and errors and requests of each of stable's pods.

    steady: whether the pods are the same as for some time, and Ready. Only then do the counts show how the requests
    were split: what a pod has answered since the last look is lost with it, and a slot without one answers nothing.
    """

    canary: Tally
    stable: Tally
    by_pod: dict[str, tuple[float, float]]
    steady: bool


class Watcher:
    """Reads the metrics of the pods that clients reach. page: reads one, from its URL."""

    def __init__(self, settings: Settings, page: Callable[[str], Scrape] = lambda url: read(url, _SECONDS)) -> None:
        self._settings, self._page = settings, page
        self._fleet = Fleet()
        self._steady = 0

    def look(self, pods: Sequence[Object]) -> Counted:
        """What the pods have counted since the last look."""
        entry = {name: pod for pod in pods if (name := pod["metadata"]["name"]) and self._answers(pod)}
        with ThreadPoolExecutor(_READERS) as readers:
            pages = dict(zip(entry, readers.map(self._read, entry.values()), strict=True))
        counts = self._fleet.counted(pages)
        self._steady = self._steady + 1 if self._fleet.whole and all(map(is_ready, entry.values())) else 0
        ours, theirs = (
            {name: counts[name] for name in counts if slot_of(entry[name], self._settings) == slot.slot}
            for slot in (self._settings.canary, self._settings.stable)
        )
        found = {name: tally([each]) for name, each in theirs.items()}
        by_pod = {name: (each.errors, each.requests) for name, each in found.items()}
        return Counted(tally(ours.values()), tally(theirs.values()), by_pod, self._steady >= STEADY_LOOKS)

    def _answers(self, pod: Object) -> bool:
        labels = pod["metadata"]["labels"]
        return bool(labels.get("component") == self._settings.entry and pod.get("status", {}).get("podIP"))

    def _read(self, pod: Object) -> Scrape | None:
        address = pod["status"]["podIP"]
        host = f"[{address}]" if ":" in address else address
        try:
            return self._page(f"http://{host}:{ADMIN_PORT}/metrics")
        except RolloutError:
            return None


def slot_of(pod: Object, settings: Settings) -> str:
    """The letter of a pod's slot, empty if it is of neither."""
    service = pod["metadata"].get("labels", {}).get(SERVICE, "")
    return next(
        (slot.slot for slot in (settings.stable, settings.canary) if service == f"{settings.name}-{slot.slot}"), ""
    )


def lacking(pods: Sequence[Object], slot: Slot, settings: Settings) -> str:
    """Why a slot can't be given traffic; empty if all of its pods are Ready, and of its release."""
    own = [pod for pod in pods if slot_of(pod, settings) == slot.slot and "deletionTimestamp" not in pod["metadata"]]
    for workload in settings.workloads:
        found = [pod for pod in own if pod["metadata"]["labels"].get("component") == workload]
        if not found:
            return f"slot {slot.slot} has no {workload}"
        others = [pod for pod in found if _release(pod) != slot.release]
        if others:
            return f"{workload} of slot {slot.slot} has pods of release {_release(others[0])}, not {slot.release}"
        ready = sum(map(is_ready, found))
        if ready < len(found):
            return f"{workload} of slot {slot.slot} has {ready} of {len(found)} pods Ready"
    return ""


def ready(pods: Sequence[Object], slot: Slot, settings: Settings) -> int:
    """How many pods of a slot answer clients."""
    own = (pod for pod in pods if slot_of(pod, settings) == slot.slot)
    return sum(is_ready(pod) for pod in own if pod["metadata"]["labels"].get("component") == settings.entry)


def restarts(pods: Sequence[Object], settings: Settings) -> list[Pod]:
    """The pods of both slots, and how often their containers were restarted."""
    found = []
    for pod in pods:
        if letter := slot_of(pod, settings):
            states = pod.get("status", {}).get("containerStatuses", [])
            found.append(Pod(letter, pod["metadata"]["name"], sum(each["restartCount"] for each in states)))
    return found


def is_ready(pod: Object) -> bool:
    """Whether a pod is Ready, and not about to end."""
    conditions = pod.get("status", {}).get("conditions", [])
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def _release(pod: Object) -> str:
    return str(pod["metadata"].get("annotations", {}).get("tabserve/release", "none"))
