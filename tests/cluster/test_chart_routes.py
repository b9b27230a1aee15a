"""Routes besides the chart's own: a slot that one of them leads to stays, and nobody loses a request."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, connect, merged, released
from tests.cluster.load import Seen, Target, constant
from tests.cluster.shares import wait_for, wait_for_share, wait_until_only
from tests.cluster.testbed import api
from tests.cluster.testbed.places import STANDARD_PORT

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster")]
GATEWAY_API = "gateway.networking.k8s.io/v1"
RBAC = "rbac.authorization.k8s.io/v1"
ELSEWHERE = "default"
GATEWAY = f"127.0.0.1:{STANDARD_PORT}"
PARENT = {"name": "kserve-ingress-gateway", "namespace": "kserve"}
ALL_ROUTES = {"traffic": {"routes": {"kinds": ["HTTPRoute", "GRPCRoute"], "allNamespaces": True}}}
TENANT = "--kube-as-user=tenant"
OF_B = {"serving.kserve.io/inferenceservice": "routed-b"}
HERE, THERE, GRPC = "second.example.com", "third.example.com", "fourth.example.com"


def route(kind: str, namespace: str, host: str, weight: int) -> api.Object:
    """A route that splits a host's requests between the slots; the weight is slot b's, where slot a has 1."""
    port = {"HTTPRoute": 80, "GRPCRoute": 8081}[kind]
    slots = [("routed-a-transformer", 1), ("routed-b-transformer", weight)]
    backends = [{"name": name, "namespace": NAMESPACE, "port": port, "weight": share} for name, share in slots]
    spec = {"parentRefs": [PARENT], "hostnames": [host], "rules": [{"backendRefs": backends}]}
    return object_(GATEWAY_API, kind, host, namespace, spec=spec)


def object_(version: str, kind: str, name: str, namespace: str = NAMESPACE, **more: Any) -> api.Object:
    """An object in a namespace."""
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}, **more}


def here(weight: int) -> api.Object:
    """A second route in the release's namespace."""
    return route("HTTPRoute", NAMESPACE, HERE, weight)


def there(weight: int) -> list[api.Object]:
    """Routes in another namespace."""
    return [route("HTTPRoute", ELSEWHERE, THERE, weight), route("GRPCRoute", ELSEWHERE, GRPC, weight)]


def rights() -> list[api.Object]:
    """Other namespaces' routes may lead into this one; `tenant` may do everything in it, and nothing elsewhere."""
    sources = [{"group": "gateway.networking.k8s.io", "kind": kind, "namespace": ELSEWHERE}
               for kind in ("HTTPRoute", "GRPCRoute")]  # fmt: skip
    grant = {"from": sources, "to": [{"group": "", "kind": "Service"}]}
    everything = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    tenant = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "tenant"}]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tenant"}
    return [
        object_("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", "routed", spec=grant),
        object_(RBAC, "Role", "tenant", rules=everything),
        object_(RBAC, "RoleBinding", "tenant", roleRef=role, subjects=tenant),
    ]


@contextmanager
def applied(*objects: api.Object) -> Generator[None]:
    """Objects that are deleted when the block is left."""
    try:
        connect().apply(*objects)
        yield
    finally:
        for item in objects:
            connect().delete(item["apiVersion"], item["kind"], **item["metadata"])


@contextmanager
def loads(bundle: Path) -> Generator[list[Seen]]:
    """A constant load through each route."""
    record = expected.record(bundles.load(bundle), 0)
    http, elsewhere, grpc = (Target(GATEWAY, host, "breast-cancer", record) for host in (HERE, THERE, GRPC))
    with constant(http) as one, constant(elsewhere, rest=1) as two, constant(grpc, rest=0, grpc=1) as three:
        yield [one, two, three]


def unreachable() -> str:
    """The hosts that the gateway does not lead to a slot yet, a moment after their routes were made."""
    found = []
    for host in (HERE, THERE):
        with closing(HTTPConnection("127.0.0.1", STANDARD_PORT, timeout=10)) as connection:
            connection.request("GET", "/v2/health/ready", headers={"Host": host})
            found += [host] if connection.getresponse().status != 200 else []
    return ", ".join(found)


def let_kserve_route(service: str) -> None:
    """Let KServe make its own routes for an InferenceService, which the chart prevents."""
    change = {"metadata": {"labels": {"networking.kserve.io/visibility": None}}}
    connect().merge(chart.SERVING, "InferenceService", service, NAMESPACE, change)

    def lacking() -> str:
        names = (service, f"{service}-predictor", f"{service}-transformer")
        return ", ".join(name for name in names if not connect().exists(GATEWAY_API, "HTTPRoute", name, NAMESPACE))

    api.wait("KServe's routes", lacking, 60, chart.explain)


def test_a_slot_that_another_route_leads_to_is_not_emptied(bundle: Path, tmp_path: Path) -> None:
    slots = [chart.on_volume(bundle), chart.on_volume(chart.next_version(bundle, tmp_path / "second"))]
    only_a = chart.values("breast-cancer", releases={"a": slots[0]})
    both = merged(only_a, {"releases": {"b": slots[1]}})
    with released("routed") as release, applied(*rights(), here(1), *there(1)):
        release.apply(both)
        chart.wait_ready("routed-a", "routed-b")
        api.wait("the routes", unreachable, 60, chart.explain)
        a, b = chart.release_of("routed-a"), chart.release_of("routed-b")
        with loads(bundle) as seen:
            for load in seen:
                wait_for_share(load, b)
            emptied = release.refusal(only_a, TENANT)
            changed = release.refusal(merged(both, {"releases": {"b": slots[0]}}), TENANT)
            connect().apply(here(0))
            emptied_everywhere = release.refusal(merged(only_a, ALL_ROUTES))
            connect().apply(*there(0))
            for load in seen:
                wait_until_only(load, a)
            let_kserve_route("routed-b")
            release.apply(merged(only_a, ALL_ROUTES), "--dry-run=server")
            release.apply(only_a, TENANT)
            api.wait("b gone", lambda: ", ".join(chart.pods(**OF_B)), 90, chart.explain)
            for load in seen:
                wait_for(load, 100)

    elsewhere = f"HTTPRoute {ELSEWHERE}/{THERE}, GRPCRoute {ELSEWHERE}/{GRPC}"
    assert f"ERROR: slot b has traffic from HTTPRoute {NAMESPACE}/{HERE} and would be emptied" in emptied
    assert f"ERROR: slot b has traffic from HTTPRoute {NAMESPACE}/{HERE}, and its release would be changed" in changed
    assert f"ERROR: slot b has traffic from {elsewhere} and would be emptied" in emptied_everywhere
    assert [load.failures() for load in seen] == [[], [], []]
    assert [load.mixed() for load in seen] == [[], [], []]
