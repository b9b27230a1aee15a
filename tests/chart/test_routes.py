"""Which routes lead requests to a slot; tests/cluster/test_chart_routes.py shows that the chart reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.chart.helm import HELMS, program, rendered

ASKED = """'{{ include "tabserve.leads" (dict "slot" "fraud-b" "namespace" "models" "route" (fromJson `ROUTE`)) }}'"""


@pytest.fixture(scope="module", params=HELMS)
def helm(request: pytest.FixtureRequest) -> Path:
    return program(HELMS[request.param])


def backend(name: str = "fraud-b-transformer", **more: Any) -> dict[str, Any]:
    """A backend of a rule."""
    return {"name": name, "port": 80, **more}


def mirror(**to: Any) -> list[dict[str, Any]]:
    """The filters of a rule or a backend with a mirror."""
    headers = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x"]}}
    return [headers, {"type": "RequestMirror", "requestMirror": {"backendRef": backend(**to), "percent": 1}}]


def owned(name: str, kind: str = "InferenceService", controller: bool = True) -> list[dict[str, Any]]:
    """The owner references of a route."""
    return [{"apiVersion": "x/v1", "kind": kind, "name": name, "controller": controller}]


def route(*rules: dict[str, Any], namespace: str = "models", **metadata: Any) -> dict[str, Any]:
    """A route with these rules."""
    return {"metadata": {"name": "second", "namespace": namespace, **metadata}, "spec": {"rules": rules}}


def to(*backends: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A rule with these backends."""
    return {"backendRefs": backends, **more}


A = backend("fraud-a-transformer")
LEADING = {
    "without a weight": route(to(backend())),
    "with a weight": route(to(A, backend(weight=1))),
    "to the predictor": route(to(backend("fraud-b-predictor", kind="Service", group=""))),
    "to its pods": route(to(backend("fraud-b-predictor-pods"))),
    "by its second rule": route(to(A), to(backend())),
    "by name of the namespace": route(to(backend(namespace="models"))),
    "from another namespace": route(to(backend(namespace="models")), namespace="elsewhere"),
    "by a mirror": route(to(A, filters=mirror())),
    "by a backend's mirror": route(to(A | {"filters": mirror()})),
    "by a mirror from another namespace": route(to(A, filters=mirror(namespace="models")), namespace="elsewhere"),
    "owned by another service": route(to(backend()), ownerReferences=owned("fraud-a")),
    "owned by another kind": route(to(backend()), ownerReferences=owned("fraud-b", kind="Application")),
    "not controlled": route(to(backend()), ownerReferences=owned("fraud-b", controller=False)),
    "owned elsewhere": route(to(backend(namespace="models")), namespace="elsewhere", ownerReferences=owned("fraud-b")),
}
NOT_LEADING = {
    "without rules": route(),
    "without backends": route({"matches": []}),
    "with weight 0": route(to(A, backend(weight=0))),
    "with weight 0 and a mirror": route(to(A, backend("x", weight=0, filters=mirror()))),
    "to the other slot": route(to(A)),
    "to a longer name": route(to(backend("fraud-b-transformer-2"), backend("not-fraud-b-transformer"))),
    "to a release whose name begins alike": route(to(backend("fraud-b-a-transformer"))),
    "to its like elsewhere": route(to(backend(namespace="elsewhere"))),
    "from elsewhere to its like there": route(to(backend()), namespace="elsewhere"),
    "to another kind": route(to(backend(kind="Backend", group="gateway.envoyproxy.io"))),
    "to a mirror of the other slot": route(to(A, filters=mirror(name="fraud-a-transformer"))),
    "made by KServe": route(to(backend()), ownerReferences=owned("fraud-b")),
}


def led(helm: Path, routes: dict[str, dict[str, Any]]) -> list[str]:
    """The routes that lead to slot `b`."""
    asked = [f"  {name}: {ASKED.replace('ROUTE', json.dumps(one))}" for name, one in routes.items()]
    told = "\n".join(["apiVersion: v1", "kind: ConfigMap", "metadata: {name: told, labels: {}}", "data:", *asked])
    (found,) = (item for item in rendered({"extraObjects": [told]}, helm) if item["metadata"]["name"] == "told")
    return [name for name, answer in found["data"].items() if answer]


def test_routes_with_a_weight_or_a_mirror_lead_to_a_slot(helm: Path) -> None:
    assert led(helm, LEADING) == [*LEADING]


def test_others_do_not(helm: Path) -> None:
    assert led(helm, {"control": route(to(backend()))} | NOT_LEADING) == ["control"]
