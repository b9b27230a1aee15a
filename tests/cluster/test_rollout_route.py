"""The gate's own route under constant load: born warm, moved, deleted, and gone with its pod; no request is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tabserve.kubeconfig import Away
from tabserve.rollout.kube import ROUTES, Api
from tabserve.rollout.moving import Mover
from tabserve.rollout.seen import Route
from tabserve.rollout.settings import Course, Gateway, Header, Settings
from tabserve.rollout.state import Slot
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, connect, released
from tests.cluster.gates import A_SECOND, GATEWAY, MODEL
from tests.cluster.load import Seen, Target, constant
from tests.cluster.shares import FEW, bounds, wait_for, wait_until_only
from tests.cluster.testbed import api

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster")]
COUNTED = 5
"""In every so many rounds the shares are counted; the others only wait for some answers."""
LOST = 2
"""How many requests may fail when a route goes with its pod and is not closed first, as when a node is lost.

Envoy forgets a cluster before the route that leads to it (envoyproxy/gateway#6287).
"""
PARENT = {"name": "kserve-ingress-gateway", "namespace": "kserve"}


def ask(method: str, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
    """Asks the cluster under test, as the gate asks its own."""
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    try:
        return 200, connect().request(method, path, body, kind).encode()
    except api.ApiError as error:
        if error.status == 503:
            raise Away(str(error)) from None
        return error.status, json.dumps({"message": str(error)}).encode()


def settings(name: str) -> Settings:
    """What the gate of a release would be told."""
    return Settings(
        name=name,
        namespace=NAMESPACE,
        stable=Slot("a", chart.release_of(f"{name}-a")),
        canary=Slot("b", chart.release_of(f"{name}-b")),
        entry="transformer",
        workloads=["predictor", "transformer"],
        gateway=Gateway([PARENT], [f"{name}-{NAMESPACE}.example.com"], "30s"),
        header=Header("x-tabserve-canary", "always"),
        course=Course(steps=[5, 20, 50]),
        job="by-hand",
    )


def owner(name: str) -> dict[str, str]:
    """A pod that does nothing, which owns the route."""
    labels = {"serving.kserve.io/inferenceservice": f"{name}-a", "component": "predictor"}
    (pod,) = chart.staying(**labels)
    spec = pod["spec"]["containers"][0]
    security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    container = {
        "name": "owner", "image": spec["image"], "command": ["sleep", "1d"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }  # fmt: skip
    made = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{name}-owner", "namespace": NAMESPACE},
        "spec": {"containers": [container], "securityContext": security, "terminationGracePeriodSeconds": 0},
    }  # fmt: skip
    connect().apply(made)
    found = connect().get("v1", "Pod", f"{name}-owner", NAMESPACE)["metadata"]
    return {"name": found["name"], "uid": found["uid"]}


def follow(mover: Mover, wanted: Route | None) -> None:
    """Move the route until the gateway follows it."""

    def lacking() -> str:
        mover.look()
        done = mover.move(wanted)
        print(f"{time.monotonic():.1f} {wanted}: followed {mover.followed}")
        return "" if done and (wanted is None or mover.followed == wanted) else f"followed: {mover.followed}"

    api.wait(f"the route at {wanted}", lacking, 60, chart.explain)


@contextmanager
def both_slots(name: str, bundle: Path, folder: Path) -> Generator[tuple[str, str]]:
    """A release with both slots Ready, none of which is the canary; gives the ids of their releases."""
    slots = {"a": chart.on_volume(bundle), "b": chart.on_volume(chart.next_version(bundle, folder / "second"))}
    with released(name) as release:
        release.apply(chart.values(MODEL, releases=slots, traffic={"canary": "b"}))
        chart.wait_ready(f"{name}-a", f"{name}-b")
        yield chart.release_of(f"{name}-a"), chart.release_of(f"{name}-b")


def counted(seen: Seen, requests: int) -> list[str]:
    """The releases of so many answers, once those to requests that were under way are in."""
    wait_for(seen, 30)
    return wait_for(seen, requests)


def rounds(name: str, bundle: Path, folder: Path, count: int) -> tuple[Seen, dict[int, list[list[str]]], str]:
    """Births, moves and deletions of the route; gives all answers, those by weight, and the canary's release."""
    record = expected.record(bundles.load(bundle), 0)
    target = Target(GATEWAY, f"{name}-{NAMESPACE}.example.com", MODEL, record)
    found: dict[int, list[list[str]]] = {5: [], 20: [], 50: [], 100: []}
    with both_slots(name, bundle, folder) as (a, b), constant(target, rest=2, grpc=1, per_second=A_SECOND / 3) as seen:
        mine = Api(ask, NAMESPACE)
        for turn in range(count):
            mover = Mover(mine, settings(name), owner(name))
            for weight, answers in found.items():
                follow(mover, Route(weight, 0))
                if turn % COUNTED:
                    wait_for(seen, FEW)
                else:
                    answers.append(counted(seen, 240))
            follow(mover, None)
            wait_until_only(seen, a)
        mover = Mover(mine, settings(name), owner(name))
        follow(mover, Route(50, 0))
        assert seen.failures() == []
        chart.kill(f"{name}-owner")
        api.wait("route gone", lambda: "there" if mine.get(ROUTES, f"{name}-rollout") else "", 30, chart.explain)
        wait_until_only(seen, a)
    return seen, found, b


@pytest.mark.parametrize("count", [1, pytest.param(20, marks=pytest.mark.long)])
def test_a_route_that_is_born_moved_and_deleted_loses_no_request(bundle: Path, tmp_path: Path, count: int) -> None:
    seen, found, b = rounds("warm", bundle, tmp_path, count)

    assert len(seen.failures()) <= LOST
    assert seen.mixed() == []
    assert {answer.protocol for answer in seen.answers} == {"REST", "gRPC"}
    for weight, answers in found.items():
        total = sum(map(len, answers))
        low, high = bounds(total, weight / 100)
        shares = [each.count(b) for each in answers]
        print(f"{weight} %: {shares} of {[len(each) for each in answers]}")
        assert low - 3 * len(answers) <= sum(shares) <= high + 3 * len(answers)
    print(f"{count} rounds, {len(seen.answers)} requests, {len(seen.failures())} failed, {len(seen.mixed())} mixed")
