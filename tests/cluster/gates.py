"""Rollouts with a gate in the cluster under test: a release with a canary, under constant load."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tabserve.rollout.kube import STATE
from tabserve.rollout.state import State, parse
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, Release, Values, connect, kubeconfig, merged, released
from tests.cluster.load import Seen, Target, constant
from tests.cluster.shares import wait_for
from tests.cluster.testbed import api, build
from tests.cluster.testbed.build import Build
from tests.cluster.testbed.places import PROJECT, STANDARD_PORT

GATEWAY = f"127.0.0.1:{STANDARD_PORT}"
ROUTE = ("gateway.networking.k8s.io/v1", "HTTPRoute")
MODEL = "breast-cancer"
FORCED = {"x-tabserve-canary": "always"}
COURSE: Values = {
    "enabled": True,
    "steps": [20, 50],
    "calibrate": "2m",
    "shadow": {"percent": 0},
    "budget": {"slow": {"over": 1}},
}
"""Short, and patient with a machine that has much else to do."""
A_SECOND = 5000 / 60
"""How many requests all clients of a release send."""
INJECTED = """
import asyncio, itertools, random
from tabserve_transformer.model import Transformer
count = itertools.count()
def injecting(made):
    async def injected(self, request, context):
        {what}
        return await made(self, request, context)
    return injected
Transformer.predict, Transformer.infer = injecting(Transformer.predict), injecting(Transformer.infer)
"""
FAILS = 'if random.random() < 0.05: raise RuntimeError("injected")'
"""One request in twenty fails, by chance: the gateway gives out shares in a fixed order, and clients keep theirs."""
DAWDLES = "await asyncio.sleep(0.03 if next(count) % 50 == 0 else 0)"
"""One request in fifty takes 30 ms longer."""
FAILS_FORCED = 'if context.arm == "forced": raise RuntimeError("injected")'
"""Every request with the canary's header fails."""
EATS_FORCED = 'if context.arm == "forced": b"x" * (2 << 30)'
"""A request with the canary's header takes more memory than there is."""


class World(NamedTuple):
    """A release with a canary, its values, what a constant load sees of it, and the ids of its releases."""

    release: Release
    values: Values
    seen: Seen
    a: str
    b: str
    began: float

    @property
    def target(self) -> Target:
        """The model behind the gateway."""
        return Target(GATEWAY, f"{self.release.name}-{NAMESPACE}.example.com", MODEL, {})


def injected(name: str, what: str) -> Values:
    """Values of a release NAME whose transformer in slot b does this at each request."""
    name = f"{name}-injected"
    code = {"name": "injected", "configMap": {"name": name}}
    place = {"name": "injected", "mountPath": "/opt/app/sitecustomize.py", "subPath": "sitecustomize.py"}
    transformer = {"extraVolumes": [code], "extraVolumeMounts": [place]}
    data = {"sitecustomize.py": INJECTED.format(what=what)}
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE}, "data": data}
    return {"releases": {"b": {"transformer": transformer}}, "extraObjects": [made]}


@contextmanager
def gated(
    name: str,
    stable: Path,
    canary: Path,
    changes: Values | None = None,
    helm: Build = build.HELM3,
    records: list[dict[str, Any]] | None = None,
    rest: int = 3,
    grpc: int = 1,
    **course: Any,
) -> Generator[World]:
    """A release under load, whose gate has just been made. records: what REST clients send in turn."""
    given = records or [expected.record(bundles.load(stable), 0)]
    target = Target(GATEWAY, f"{name}-{NAMESPACE}.example.com", MODEL, given[0], others=given[1:])
    both = chart.values(MODEL, releases={"a": chart.on_volume(stable), "b": chart.on_volume(canary)})
    values = merged(both, changes or {})
    with released(name, helm.folder / "helm") as release:
        release.apply(values)
        chart.wait_ready(f"{name}-a", f"{name}-b", seconds=300)
        moved = merged(values, {"traffic": {"canary": "b"}, "rollout": merged(COURSE, course)})
        with constant(target, rest=rest, grpc=grpc, per_second=A_SECOND / (rest + grpc)) as seen:
            wait_for(seen, 100)
            began = time.monotonic()
            release.apply(moved)
            yield World(release, moved, seen, chart.release_of(f"{name}-a"), chart.release_of(f"{name}-b"), began)


def state(name: str) -> State:
    """What the gate of a release keeps. Raises ApiError 404 before it has begun."""
    found = connect().get("v1", "ConfigMap", f"{name}-rollout", NAMESPACE)
    return parse(found["data"][STATE], name)


def wait_for_phase(name: str, phase: str, weight: int, seconds: float = 480) -> State:
    """Wait until the gate is in a phase at this weight; gives what it then keeps."""

    def lacking() -> str:
        found = state(name)
        assert phase == "back" or found.phase != "back", found.told
        return "" if (found.phase, found.weight) == (phase, weight) else f"{found.phase} {found.weight}: {found.told}"

    api.wait(f"{phase} at {weight} %", lacking, seconds, chart.explain)
    return state(name)


def wait_for_share(world: World, more: int = 100) -> None:
    """Wait until the canary has answered so many more requests."""
    before = world.seen.share(world.b)
    api.wait("requests at b", lambda: "" if world.seen.share(world.b) >= before + more else "few", 120, chart.explain)


def passing(name: str, seconds: float) -> State:
    """Let so much of the gate's time pass; gives what it then keeps."""
    until = state(name).seconds + seconds
    api.wait("time", lambda: "" if state(name).seconds >= until else "not yet", seconds + 120, chart.explain)
    return state(name)


def gone(kind: tuple[str, str], name: str) -> str:
    """The object's name as long as it exists."""
    return name if connect().exists(*kind, name, NAMESPACE) else ""


def wait_until_gone(name: str) -> None:
    """Wait until nothing of a gate is left."""
    for kind in (("v1", "ConfigMap"), ROUTE):
        api.wait(f"{kind[1]} gone", lambda kind=kind: gone(kind, f"{name}-rollout"), 60, chart.explain)  # type: ignore[misc]
    assert jobs(name) == []


def jobs(name: str) -> list[str]:
    """The gates' Jobs of a release."""
    return [
        item["metadata"]["name"] for item in connect().find("batch/v1", "Job", NAMESPACE, **{"tabserve/rollout": name})
    ]


def gate_pods(name: str) -> list[str]:
    """The pods of a release's gate that are not about to end."""
    return chart.pods(**{"tabserve/gate": name})


def gate_process(pod: str) -> int:
    """The process of a gate's container, on the machine that the cluster under test runs on."""
    for found in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"TABSERVE_POD={pod}".encode() in found.read_bytes().split(b"\0"):
                return int(found.parent.name)
    raise LookupError(f"no process of pod {pod}")


def events(name: str) -> list[tuple[str, str]]:
    """Reasons and messages of the Events at a release's canary."""
    found = connect().find("v1", "Event", NAMESPACE)
    return [(item["reason"], item["message"]) for item in found if item["involvedObject"]["name"] == f"{name}-b"]


def rollout(*command: str) -> subprocess.CompletedProcess[str]:
    """`tabserve rollout` with the rights of the kubeconfig."""
    whole = [sys.executable, "-m", "tabserve.cli", "rollout", *command, "-n", NAMESPACE]
    environment = os.environ | {"KUBECONFIG": str(kubeconfig())}
    return subprocess.run(whole, capture_output=True, text=True, check=False, env=environment, cwd=PROJECT)


def told(world: World, found: State) -> None:
    """Print what a rollout took, and when which answers failed."""
    start = datetime.fromisoformat(found.began)
    changes = "; ".join(
        f"{start + timedelta(seconds=change.at):%H:%M:%S} {change.phase} {change.weight} %" for change in found.changes
    )
    failures = Counter((answer.protocol, answer.status[:60], answer.error[:80]) for answer in world.seen.failures())
    clock = datetime.now(UTC) - timedelta(seconds=time.monotonic())
    times = [f"{clock + timedelta(seconds=answer.began):%H:%M:%S.%f}"[:-4] for answer in world.seen.failures()]
    print(
        f"\n{world.release.name}: {changes}\n{found.told}\n{time.monotonic() - world.began:.0f} s,"
        f" {len(world.seen.answers)} requests, {world.seen.share(world.b)} answered by b,"
        f" failed: {sum(failures.values())} {dict(failures)} {times[:3]} … {times[-3:]}"
    )
