"""How a known cause is found in what was seen of a release: short functions, one for each kind of sign."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from tabserve.doctor.api import Json
from tabserve.doctor.seen import Container, Seen, Workload, condition

START_SECONDS = 180
"""How long pods may take before they are no longer called starting."""
_TOLD_SECONDS = 60
"""How long KServe may take to see that all pods are Ready."""
_LATELY_SECONDS = 3600
"""How long a container that was killed is told of although it runs again."""
_NO_CLAIM = r'persistentvolumeclaim "[^"]*" not found'
_INITIALIZER = "storage-initializer"
_NAMED = re.compile(
    r'(?:secret|configmap) "[^"]*" not found|references? non-existent|couldn\'t find key', re.IGNORECASE
)
_PREDICTOR = re.compile(r'(?:the predictor at \S+ (?:does|fails|answers)|there is no predictor of this release)[^"\n]*')


class Sign(NamedTuple):
    """Something that tells of a cause. where: the workload or the object. found: what is wrong, in one line."""

    where: str
    found: str
    slot: str = ""
    service: str = ""


Find: TypeAlias = Callable[[Seen], Iterator[Sign]]


def of(workload: Workload, found: str) -> Sign:
    """A sign at a workload."""
    service = workload.name.removesuffix(f"-{workload.component}")
    return Sign(workload.name, " ".join(found.split()), workload.slot, service)


def refused(pattern: str) -> Find:
    """Deployments whose pods Kubernetes refuses to make with such a message."""
    return _at_workloads(lambda workload: matching(pattern, workload.refusal))


def unplaced(pattern: str) -> Find:
    """Pods that no node takes, with such a message, not counting those that wait for a claim."""
    return _at_workloads(lambda workload: "" if _waits_for_claim(workload) else matching(pattern, workload.unplaced))


def waits(*reasons: str) -> Find:
    """Containers that wait for one of these reasons."""

    def found(container: Container) -> str:
        waiting = container.waiting
        return f"{waiting['reason']}: {waiting.get('message', '')}" if waiting.get("reason") in reasons else ""

    return _at_containers(found)


def ended(pattern: str) -> Find:
    """Services that ended with such a sentence."""
    return _at_containers(lambda container: matching(pattern, container.words))


def said(pattern: str) -> Find:
    """Containers whose log ends with such a line."""

    def found(container: Container) -> str:
        lines = container.said.splitlines()
        return next((line for line in reversed(lines) if re.search(pattern, line)), "")

    return _at_containers(found)


def fetched(pattern: str) -> Find:
    """Storage initializers that failed with such a message."""
    return _at_containers(lambda container: _fetching(container, pattern))


def no_bundle(pattern: str) -> Find:
    """Storage initializers that found nothing, and services that found no bundle in what was fetched or mounted."""

    def found(container: Container) -> str:
        return _fetching(container, pattern) or matching("missing, so this is not a bundle", container.words)

    return _at_containers(found)


def missing_object(seen: Seen) -> Iterator[Sign]:
    """ConfigMaps, Secrets and their keys that pods name, and that are not there."""
    for workload in seen.workloads:
        if workload.whole:
            continue
        waiting = (str(one.waiting.get("message", "")) for one in workload.containers)
        events = (str(one.get("message", "")) for one in reversed(_of_pods(seen, workload)))
        named = next((told for told in (*waiting, *events) if _NAMED.search(told)), "")
        if named:
            yield of(workload, named)


def claim_missing(seen: Seen) -> Iterator[Sign]:
    """Claims that bundles and pods name, and that are not there."""
    missing = [name for name in sorted(seen.missing) if name.startswith("PersistentVolumeClaim ")]
    for workload in seen.workloads:
        told = matching(_NO_CLAIM, workload.unplaced)
        if told or (missing and not workload.whole):
            yield of(workload, told or f"there is no {', '.join(missing)}")


def claim_pending(seen: Seen) -> Iterator[Sign]:
    """Claims that have no volume, and pods that wait for them."""
    waiting = {name for name, claim in seen.claims.items() if claim.get("status", {}).get("phase") != "Bound"}
    for workload in seen.workloads:
        if _waits_for_claim(workload) and waiting and not re.search(_NO_CLAIM, workload.unplaced):
            why = [str(one.get("message", "")) for name in sorted(waiting) for one in seen.about(name)]
            yield of(workload, f"{', '.join(sorted(waiting))}: {why[-1] if why else workload.unplaced}")


def out_of_memory(seen: Seen) -> Iterator[Sign]:
    """Containers that were killed at their memory limit, and do not run, or were killed lately."""
    for workload in seen.workloads:
        for one in workload.containers:
            killed = one.ended.get("reason") == "OOMKilled" or "OOM-killed" in str(one.ended.get("message", ""))
            lately = seen.seconds_since(one.ended.get("finishedAt")) < _LATELY_SECONDS
            if killed and (lately or not one.status.get("ready")):
                limit = one.limits.get("memory", "none")
                times = one.status.get("restartCount", 0)
                yield of(workload, f"container {one.name} was OOMKilled; its limit is {limit}; {times} restarts")
                break


def predictor_unreachable(seen: Seen) -> Iterator[Sign]:
    """Transformers that run, and reach no predictor although there are some."""
    for workload in seen.workloads:
        predictor = seen.predictor(workload.slot)
        if workload.component != "transformer" or workload.whole or predictor is None or not predictor.whole:
            continue
        told = [found[0] for one in workload.containers for found in _PREDICTOR.finditer(one.said)]
        if told and " answers" not in told[-1]:
            service = f"{of(workload, '').service}-predictor-pods"
            absent = f"; there is no Service {service}" if f"Service {service}" in seen.missing else ""
            yield of(workload, told[-1] + absent)


def no_release(seen: Seen) -> Iterator[Sign]:
    """The namespace has no InferenceService of the release."""
    if not seen.slots and "inferenceservices" not in seen.unread:
        others = f"; there are {', '.join(seen.others)}" if seen.others else ""
        yield Sign(f"namespace {seen.namespace}", f"no InferenceService of the release {seen.release}{others}")


def no_controller(seen: Seen) -> Iterator[Sign]:
    """InferenceServices that nobody has looked at."""
    for slot in seen.slots:
        if (
            not slot.service.get("status")
            and seen.seconds_since(slot.service["metadata"].get("creationTimestamp")) > 30
        ):
            yield Sign(f"InferenceService {slot.name}", "it has no status", slot.letter, slot.name)


def no_gateway(seen: Seen) -> Iterator[Sign]:
    """Gateways that the route names, and that are not there."""
    for name in sorted(seen.missing):
        if name.startswith("Gateway "):
            yield Sign(f"HTTPRoute {seen.name}", f"there is no {name}")


def gateway_class(seen: Seen) -> Iterator[Sign]:
    """Gateways whose class is not there, or that nobody has accepted."""
    for name, gateway in seen.gateways.items():
        called = gateway["spec"]["gatewayClassName"]
        if f"GatewayClass {called}" in seen.missing:
            yield Sign(f"Gateway {name}", f"there is no GatewayClass {called}")
        elif (accepted := condition(gateway, "Accepted")).get("status") != "True":
            yield Sign(f"Gateway {name}", f"{accepted.get('reason', '')}: {accepted.get('message', 'not accepted')}")


def route_refused(seen: Seen) -> Iterator[Sign]:
    """Routes that a Gateway does not take, although it is there and runs."""
    if any(gateway_class(seen)) or any(no_gateway(seen)):
        return
    for name, route in seen.routes.items():
        parents = route.get("status", {}).get("parents", [])
        if not parents and seen.gateways:
            yield Sign(f"HTTPRoute {name}", "no Gateway has looked at it")
        yield from _conditions(name, parents, "Accepted")


def route_backend(seen: Seen) -> Iterator[Sign]:
    """Routes that lead to what is not there."""
    for name, route in seen.routes.items():
        yield from _conditions(name, route.get("status", {}).get("parents", []), "ResolvedRefs")


def rollout(phase: str) -> Find:
    """A gate's rollout in this phase."""

    def found(seen: Seen) -> Iterator[Sign]:
        if seen.rollout is not None and seen.rollout.phase == phase:
            yield Sign(f"ConfigMap {seen.name}-rollout", seen.rollout.told, seen.rollout.slot)

    return found


def no_metrics(seen: Seen) -> Iterator[Sign]:
    """Autoscalers that get no metrics, a while after they were made."""
    for one in seen.autoscalers:
        active = condition(one, "ScalingActive")
        if active.get("status") == "False" and seen.seconds_since(active.get("lastTransitionTime")) > START_SECONDS:
            told = f"{active.get('reason', '')}: {active.get('message', '')}"
            yield Sign(f"HorizontalPodAutoscaler {one['metadata']['name']}", told)


def starting(seen: Seen) -> Iterator[Sign]:
    """Workloads that lack Ready pods, which are young and have not failed; and what KServe has not seen to be Ready."""
    for workload in _lacking(seen):
        if workload.wanted and _age(seen, workload) < START_SECONDS:
            yield of(workload, _counted(workload))
    for slot in seen.slots:
        whole = all(workload.whole for workload in slot.workloads)
        if whole and slot.unready and min(_ready_for(seen, one) for one in slot.workloads) < _TOLD_SECONDS:
            yield Sign(f"InferenceService {slot.name}", slot.unready, slot.letter, slot.name)


def not_ready(seen: Seen) -> Iterator[Sign]:
    """Workloads that lack Ready pods, which are old enough and have not failed."""
    for workload in _lacking(seen):
        if _age(seen, workload) >= START_SECONDS or not workload.wanted:
            events = _of_pods(seen, workload)
            why = f"; {events[-1].get('message', '')}" if events else ""
            yield of(workload, _counted(workload) + why)


def failing(workload: Workload) -> str:
    """How a container of a workload fails; empty if none does."""
    for one in workload.containers:
        reason = one.waiting.get("reason", "")
        if reason not in ("", "ContainerCreating", "PodInitializing") or one.ended.get("exitCode"):
            code = one.ended.get("exitCode")
            return f"container {one.name}: {reason or 'ended'}" + (f", exit status {code}" if code is not None else "")
    return ""


def matching(pattern: str, text: str) -> str:
    """The text, if it holds such a part; otherwise nothing."""
    return text if text and re.search(pattern, text) else ""


def _at_workloads(told: Callable[[Workload], str]) -> Find:
    def find(seen: Seen) -> Iterator[Sign]:
        return (of(one, found) for one in seen.workloads if not one.whole and (found := told(one)))

    return find


def _at_containers(told: Callable[[Container], str]) -> Find:
    """At most one sign for each workload that is not whole."""
    return _at_workloads(lambda workload: next(filter(None, map(told, reversed(workload.containers))), ""))


def _fetching(container: Container, pattern: str) -> str:
    if container.name != _INITIALIZER or not re.search(pattern, container.said):
        return ""
    lines = [line for line in container.said.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if re.search(pattern, line)), lines[-1])


def _waits_for_claim(workload: Workload) -> bool:
    return "persistentvolumeclaim" in workload.unplaced.lower()


def _conditions(name: str, parents: list[Json], kind: str) -> Iterator[Sign]:
    for parent in parents:
        for one in parent.get("conditions", []):
            if one["type"] == kind and one["status"] == "False":
                yield Sign(f"HTTPRoute {name}", f"{one.get('reason', '')}: {one.get('message', '')}")


def _lacking(seen: Seen) -> Iterator[Workload]:
    """Workloads that are not whole and have not failed; transformers only where their predictor is whole."""
    for workload in seen.workloads:
        predictor = seen.predictor(workload.slot)
        waits_for_it = workload.component == "transformer" and predictor is not None and not predictor.whole
        if not workload.whole and not waits_for_it and not failing(workload):
            yield workload


def _age(seen: Seen, workload: Workload) -> float:
    """The seconds since the youngest pod was made, or the Deployment, if there is no pod."""
    made = [pod["metadata"].get("creationTimestamp") for pod in workload.pods]
    if not made and workload.deployment is not None:
        made = [workload.deployment["metadata"].get("creationTimestamp")]
    return min((seen.seconds_since(moment) for moment in made), default=0.0)


def _ready_for(seen: Seen, workload: Workload) -> float:
    """The seconds since the last of a workload's pods became Ready."""
    since = (condition(pod, "Ready").get("lastTransitionTime") for pod in workload.pods)
    return min((seen.seconds_since(moment) for moment in since), default=0.0)


def _of_pods(seen: Seen, workload: Workload) -> list[Json]:
    """The warnings about a workload's present pods, the newest last."""
    names = {pod["metadata"]["name"] for pod in workload.pods}
    return [one for one in seen.events if one["involvedObject"].get("name") in names]


def _counted(workload: Workload) -> str:
    return f"{workload.ready} of {workload.wanted} pods Ready" if workload.wanted else "scaled to 0 pods"
