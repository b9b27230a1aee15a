"""Say which of the known causes a release's trouble has, and what is not explained by any."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from tabserve.doctor import signs
from tabserve.doctor.causes import CAUSES, Cause
from tabserve.doctor.seen import Seen, Slot, redacted
from tabserve.doctor.signs import Sign

HEALTHY, EXPLAINED, UNEXPLAINED = 0, 1, 2
"""Exit statuses."""
_MOST_LINES = 15


class Finding(NamedTuple):
    """A cause that was found: its name and title, where, what was found, and what to do."""

    cause: str
    title: str
    where: list[str]
    found: str
    remedy: str


class Diagnosis(NamedTuple):
    """What is the matter with a release. unexplained: what is wrong without a known cause."""

    seen: Seen
    findings: list[Finding]
    unexplained: list[str]

    @property
    def status(self) -> int:
        """The exit status."""
        return EXPLAINED if self.findings else UNEXPLAINED if self.unexplained else HEALTHY

    def facts(self) -> dict[str, Any]:
        """For programs."""
        return {
            "release": self.seen.release,
            "namespace": self.seen.namespace,
            "healthy": self.status == HEALTHY,
            "slots": list(slot_rows(self.seen)),
            "causes": [one._asdict() for one in self.findings],
            "unexplained": self.unexplained,
            "not_read": list(self.seen.unread),
            **({"events": list(events(self.seen)), "logs": dict(logs(self.seen))} if self.unexplained else {}),
        }


def diagnose(seen: Seen) -> Diagnosis:
    """The causes in the order of their table, and what none of them explains."""
    explained: set[str] = set()
    findings: list[Finding] = []
    for cause in CAUSES:
        found = [sign for sign in cause.find(seen) if not (cause.rest and sign.where in explained)]
        explained |= {sign.where for sign in found}
        findings += _findings(seen, cause, found)
    return Diagnosis(seen, findings, list(_unexplained(seen, explained)))


def _findings(seen: Seen, cause: Cause, found: Iterable[Sign]) -> Iterator[Finding]:
    """One finding for the same words in the same slot, wherever they were found."""
    groups: dict[Sign, list[str]] = {}
    for sign in found:
        groups.setdefault(sign._replace(where=""), []).append(sign.where)
    for sign, where in groups.items():
        service = sign.service or f"{seen.name or 'NAME'}-{sign.slot or 'SLOT'}"
        names = {"release": seen.release, "namespace": seen.namespace, "slot": sign.slot or "SLOT", "service": service}
        yield Finding(cause.name, cause.title, where, redacted(sign.found), cause.remedy.format_map(names))


def _unexplained(seen: Seen, explained: set[str]) -> Iterator[str]:
    """What is wrong with slots where no cause was found."""
    if not seen.slots and not explained:
        yield f"not allowed to read the InferenceServices in {seen.namespace}"
    for slot in seen.slots:
        lacking = [one for one in slot.workloads if not one.whole]
        known = {one.name for one in slot.workloads} | {f"InferenceService {slot.name}"}
        for workload in lacking:
            if workload.name not in explained and not (workload.component == "transformer" and len(lacking) > 1):
                why = signs.failing(workload)
                yield f"{workload.name}: {workload.ready} of {workload.wanted} pods Ready" + (f"; {why}" if why else "")
        if not lacking and slot.unready and not known & explained:
            yield f"InferenceService {slot.name} is not Ready: {slot.unready}"


def slot_rows(seen: Seen) -> Iterator[dict[str, Any]]:
    """The workloads as rows of a table."""
    for slot in seen.slots:
        for workload in slot.workloads:
            yield {
                "slot": slot.letter,
                "workload": workload.name,
                "ready": f"{workload.ready} of {workload.wanted}",
                "release": (slot.service["metadata"].get("annotations") or {}).get("tabserve/release", ""),
                "traffic": _traffic(seen, slot),
            }


def _traffic(seen: Seen, slot: Slot) -> str:
    """A slot's share of the traffic, as far as the release's own routes say."""
    annotations = (seen.routes.get(seen.name) or {"metadata": {}})["metadata"].get("annotations", {})
    if slot.letter == annotations.get("tabserve/stable"):
        return "stable"
    if slot.letter and slot.letter == annotations.get("tabserve/canary"):
        moved = seen.rollout.weight if seen.rollout is not None else None
        percent = annotations.get("tabserve/canary-percent", "0") if moved is None else moved
        return f"canary, {percent} %"
    return ""


def events(seen: Seen) -> Iterator[str]:
    """The last warnings, one line each."""
    for one in seen.events[-_MOST_LINES:]:
        about = one["involvedObject"]
        text = " ".join(str(one.get("message", "")).split())
        yield redacted(f"{about.get('kind', '')} {about.get('name', '')}: {one.get('reason', '')}: {text}")


def logs(seen: Seen) -> Iterator[tuple[str, list[str]]]:
    """The ends of the logs of containers that are not as they should be, by pod and container."""
    for workload in seen.workloads:
        for one in workload.containers:
            if one.said:
                yield f"{one.pod}/{one.name}", one.said.splitlines()[-_MOST_LINES:]
