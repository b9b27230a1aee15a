"""The gate's own HTTPRoute: longer prefixes than the chart's, so it wins as long as it is there.

It is born warm: first with a header that nobody sends, so that the gateway makes its clusters, and then without. It
goes as it came, because Envoy forgets a cluster some time before the route to it. Rules keep their positions, because
Envoy Gateway names clusters by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from tabserve.inference.arms import ARM, SHADOW
from tabserve.rollout.seen import Route
from tabserve.rollout.settings import Settings

Object: TypeAlias = dict[str, Any]
KIND = "gateway.networking.k8s.io/v1", "HTTPRoute"
COPIES_PORT = 8080
"""The port of the Service and of the gate's pod that copies go to."""
WARMING = {"name": "tabserve-warming", "type": "Exact", "value": "nobody-sends-this"}
_JOB, _WEIGHT, _MIRROR, _WARM = "tabserve/job", "tabserve/weight", "tabserve/mirror", "tabserve/warm"
_REST, _GRPC = ("/v1", "/v2"), ("/inference.GRPCInferenceService",)


def made(settings: Settings, route: Route, owner: Mapping[str, str], *, warm: bool) -> Object:
    """The HTTPRoute that gives the canary its share. warm: no request follows it yet. owner: name and uid of a pod."""
    gateway = settings.gateway
    rules = [_split(settings, route, paths, port, warm) for paths, port in ((_REST, 80), (_GRPC, 8081))]
    if settings.header.name:
        rules += [_forced(settings, paths, port, warm) for paths, port in ((_REST, 80), (_GRPC, 8081))]
    facts = {_JOB: settings.job, _WEIGHT: route.weight, _MIRROR: route.mirror, _WARM: str(warm).lower()}
    return {
        "apiVersion": KIND[0],
        "kind": KIND[1],
        "metadata": {
            "name": settings.owned,
            "namespace": settings.namespace,
            "labels": {"app.kubernetes.io/name": "tabserve", "app.kubernetes.io/managed-by": "tabserve-rollout"},
            "annotations": {key: str(value) for key, value in facts.items()},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", **owner}],
        },
        "spec": {"parentRefs": gateway.parent_refs, "hostnames": gateway.hostnames, "rules": rules},
    }


def closed(found: Object) -> Object:
    """The change of a route after which no request follows it any more."""
    rules = [rule | {"matches": [_also(match) for match in rule["matches"]]} for rule in found["spec"]["rules"]]
    annotations = {_WEIGHT: "0", _MIRROR: "0", _WARM: "true"}
    return {"metadata": {"annotations": annotations}, "spec": {"rules": rules}}


def _also(match: Object) -> Object:
    """A match that asks for the header that nobody sends, too."""
    return match | {"headers": [*match.get("headers", []), WARMING]}


def followed(found: Object) -> Route | None:
    """What the gateway follows; None while the route is being born, or while its newest generation is not accepted."""
    facts = found["metadata"].get("annotations", {})
    if facts.get(_WARM) != "false" or not accepted(found):
        return None
    return Route(int(facts[_WEIGHT]), int(facts[_MIRROR]))


def accepted(found: Object) -> bool:
    """Whether every Gateway has accepted this generation of the route, and found its backends."""
    parents = found.get("status", {}).get("parents", [])
    return len(parents) >= len(found["spec"]["parentRefs"]) and all(_fine(found, each) for each in parents)


def _fine(found: Object, parent: Object) -> bool:
    generation = found["metadata"]["generation"]
    true = {
        each["type"]
        for each in parent.get("conditions", [])
        if each["status"] == "True" and each.get("observedGeneration", 0) >= generation
    }
    return {"Accepted", "ResolvedRefs"} <= true


def shows(found: Object, settings: Settings, route: Route, uid: str, *, warm: bool) -> bool:
    """Whether the route is what `made` would make it, for the pod with this uid."""
    facts = found["metadata"].get("annotations", {})
    wanted = (settings.job, str(route.weight), str(route.mirror), str(warm).lower(), uid)
    return (*(facts.get(key) for key in (_JOB, _WEIGHT, _MIRROR, _WARM)), owner(found)) == wanted


def warming(found: Object) -> bool:
    """Whether no request follows the route yet."""
    return bool(found["metadata"].get("annotations", {}).get(_WARM) == "true")


def owner(found: Object) -> str:
    """The uid of the pod that owns the route; empty if none does."""
    owners = found["metadata"].get("ownerReferences", [])
    return next((str(each["uid"]) for each in owners if each["kind"] == "Pod"), "")


def _split(settings: Settings, route: Route, paths: tuple[str, ...], port: int, warm: bool) -> Object:
    slots = {settings.stable.slot: (settings.stable, 100 - route.weight)}
    slots[settings.canary.slot] = (settings.canary, route.weight)
    backends = [
        {"name": settings.service(slot), "port": port, "weight": weight} for slot, weight in slots.values() if weight
    ]
    rule = _rule(settings, paths, warm, {"remove": [ARM, SHADOW]}, backends)
    if route.mirror and paths == _REST:
        backend = {"name": settings.owned, "port": COPIES_PORT}
        rule["filters"].append(
            {"type": "RequestMirror", "requestMirror": {"backendRef": backend, "percent": route.mirror}}
        )
    return rule


def _forced(settings: Settings, paths: tuple[str, ...], port: int, warm: bool) -> Object:
    header = {"name": settings.header.name, "type": "Exact", "value": settings.header.value}
    headers = {"set": [{"name": ARM, "value": "forced"}], "remove": [SHADOW]}
    backends = [{"name": settings.service(settings.canary), "port": port}]
    return _rule(settings, paths, warm, headers, backends, header)


def _rule(
    settings: Settings, paths: tuple[str, ...], warm: bool, headers: Object, backends: list[Object], *asked: Object
) -> Object:
    wanted = [*asked, *([WARMING] if warm else [])]
    matches = [
        {"path": {"type": "PathPrefix", "value": path}} | ({"headers": wanted} if wanted else {}) for path in paths
    ]
    return {
        "matches": matches,
        "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": headers}],
        "timeouts": {"request": settings.gateway.timeout},
        "backendRefs": backends,
    }
