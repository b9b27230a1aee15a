"""The gate under constant load: a good release is promoted, a bad one taken back, and nothing is lost with a gate."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner, Result

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tabserve.cli import main
from tabserve.rollout.kube import STATE
from tabserve.rollout.state import State, parse
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, Release, Values, connect, kubeconfig, merged, released
from tests.cluster.load import Seen, Target, constant
from tests.cluster.shares import wait_for, wait_until_only
from tests.cluster.testbed import api, build
from tests.cluster.testbed.places import STANDARD_PORT

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.usefixtures("cluster")]
GATEWAY = f"127.0.0.1:{STANDARD_PORT}"
GATEWAY_API = "gateway.networking.k8s.io/v1"
MODEL = "breast-cancer"
COURSE = {
    "enabled": True,
    "steps": [20, 50],
    "calibrate": "20s",
    "shadow": {"percent": 0},
    "budget": {"slow": {"over": 1}},
}
"""Short, and patient with a machine that has much else to do."""
FAILING = """
import itertools
from tabserve_transformer.model import Transformer
made, count = Transformer.predict, itertools.count()
async def predict(self, body, context):
    if next(count) % 20 == 0:
        raise RuntimeError("injected")
    return await made(self, body, context)
Transformer.predict = predict
"""
"""Lets every twentieth request over V1 fail."""


class World(NamedTuple):
    """A release with a canary, its values, and what a constant load sees of it."""

    release: Release
    values: Values
    seen: Seen
    a: str
    b: str


def failing() -> Values:
    """Values of a release in slot b whose transformer fails now and then."""
    code = {"name": "failing", "configMap": {"name": "failing"}}
    place = {"name": "failing", "mountPath": "/opt/app/sitecustomize.py", "subPath": "sitecustomize.py"}
    transformer = {"extraVolumes": [code], "extraVolumeMounts": [place]}
    metadata = {"name": "failing", "namespace": NAMESPACE}
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"sitecustomize.py": FAILING}}
    return {"releases": {"b": {"transformer": transformer}}, "extraObjects": [made]}


@contextmanager
def gated(name: str, bundle: Path, folder: Path, changes: Values | None = None, **course: Any) -> Generator[World]:
    """A release under load, whose gate has just been made."""
    record = expected.record(bundles.load(bundle), 0)
    target = Target(GATEWAY, f"{name}-{NAMESPACE}.example.com", MODEL, record)
    second = chart.next_version(bundle, folder / "second")
    both = chart.values(MODEL, releases={"a": chart.on_volume(bundle), "b": chart.on_volume(second)})
    given = merged(both, changes or {})
    with released(name) as release:
        release.apply(given)
        chart.wait_ready(f"{name}-a", f"{name}-b")
        moved = merged(given, {"traffic": {"canary": "b"}, "rollout": merged(COURSE, course)})
        with constant(target, rest=3, grpc=1) as seen:
            wait_for(seen, 100)
            release.apply(moved)
            yield World(release, moved, seen, chart.release_of(f"{name}-a"), chart.release_of(f"{name}-b"))


def state(name: str) -> State:
    """What the gate of a release keeps. Raises ApiError 404 before it has begun."""
    found = connect().get("v1", "ConfigMap", f"{name}-rollout", NAMESPACE)
    return parse(found["data"][STATE], name)


def wait_for_phase(name: str, phase: str, weight: int, seconds: float = 420) -> None:
    """Wait until the gate is in a phase at this weight."""

    def lacking() -> str:
        found = state(name)
        return "" if (found.phase, found.weight) == (phase, weight) else f"{found.phase} {found.weight}: {found.told}"

    api.wait(f"{phase} at {weight} %", lacking, seconds, chart.explain)


def gone(kind: tuple[str, str], name: str) -> str:
    """The object's name as long as it exists."""
    return name if connect().exists(*kind, name, NAMESPACE) else ""


def jobs(name: str) -> list[str]:
    """The gates' Jobs of a release."""
    return [
        item["metadata"]["name"] for item in connect().find("batch/v1", "Job", NAMESPACE, **{"tabserve/rollout": name})
    ]


def rollout(*command: str) -> Result:
    """`tabserve rollout` with the rights of the kubeconfig."""
    return CliRunner().invoke(main, ["rollout", *command, "-n", NAMESPACE], env={"KUBECONFIG": str(kubeconfig())})


def told(seen: Seen, found: State, began: float) -> None:
    """Print what a rollout took."""
    changes = "; ".join(f"{change.at:.0f} s {change.phase} {change.weight} %" for change in found.changes)
    failures = [answer.status for answer in seen.failures()]
    print(
        f"{changes}\n{found.told}\n{time.monotonic() - began:.0f} s, {len(seen.answers)} requests, failed: {failures}"
    )


def test_a_good_release_is_held_at_the_last_step_and_promoted_by_values(bundle: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    with gated("good", bundle, tmp_path, shadow={"percent": 50, "pairs": 100}) as world:
        wait_for_phase("good", "step", 20)
        before = jobs("good")
        chart_route = connect().get(GATEWAY_API, "HTTPRoute", "good", NAMESPACE)["metadata"]["managedFields"]
        more = merged(world.values, {"transformer": {"resources": {"limits": {"memory": "600Mi"}}}})
        newer = Release("good", build.HELM4.folder / "helm")
        newer.apply(more)
        after = connect().get(GATEWAY_API, "HTTPRoute", "good", NAMESPACE)["metadata"]["managedFields"]
        wait_for_phase("good", "held", 50)
        found, verdict = state("good"), rollout("verdict", "good")
        newer.apply(merged(more, {"traffic": {"stable": "b", "canary": ""}}))
        wait_until_only(world.seen, world.b)
        api.wait("route gone", lambda: gone((GATEWAY_API, "HTTPRoute"), "good-rollout"), 60, chart.explain)
        wait_for(world.seen, 200)
        left = jobs("good")
        told(world.seen, found, began)

    assert world.seen.failures() == []
    assert world.seen.mixed() == []
    assert (verdict.exit_code, verdict.stdout.startswith("On: held at 50 %.")) == (0, True)
    assert [change.weight for change in found.changes if change.phase == "step"] == [20, 50]
    assert found.copies is not None
    assert found.copies["pairs"] >= 100
    assert (len(before), left) == (1, [])
    assert {entry["manager"] for entry in after} - {entry["manager"] for entry in chart_route} <= {"helm", "helm4"}


def test_a_release_that_fails_is_taken_back_and_not_tried_again(bundle: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    with gated("bad", bundle, tmp_path, failing()) as world:
        wait_for_phase("bad", "back", 0)
        wait_until_only(world.seen, world.a)
        found, verdict = state("bad"), rollout("verdict", "bad")
        status = rollout("status", "bad")
        events = connect().find("v1", "Event", NAMESPACE)
        world.release.apply(merged(world.values, {"commonLabels": {"again": "yes"}}))
        wait_for(world.seen, 500)
        told(world.seen, found, began)

    failed = {answer.status for answer in world.seen.failures()}
    assert failed == {"500"}
    assert found.told.startswith("Back: failed requests: ")
    assert (verdict.exit_code, verdict.stdout.strip()) == (1, found.told)
    assert found.told in status.stdout
    assert found.told[:1000] in [item["message"] for item in events if item["reason"] == "RolloutBack"]
    assert {answer.transformer for answer in world.seen.answers[-500:]} == {world.a}
    assert state_is_gone("bad")


def state_is_gone(name: str) -> bool:
    """Whether nothing of a gate is left after its release."""
    kinds = [("v1", "ConfigMap"), (GATEWAY_API, "HTTPRoute")]
    for kind in kinds:
        api.wait(f"{kind[1]} gone", lambda kind=kind: gone(kind, f"{name}-rollout"), 60, chart.explain)  # type: ignore[misc]
    return not jobs(name)


def test_traffic_is_what_the_values_say_when_the_gate_is_lost_and_what_it_moves_stays(
    bundle: Path, tmp_path: Path
) -> None:
    began = time.monotonic()
    with gated("lost", bundle, tmp_path, steps=[50], calibrate="0s") as world:
        wait_for_phase("lost", "step", 50)
        api.wait("requests at b", lambda: "" if world.seen.share(world.b) > 100 else "few", 120, chart.explain)
        emptied = merged(world.values, {"releases": {"b": {"bundle": {"digest": ""}}}, "traffic": {"canary": ""}})
        refusals = [
            world.release.refusal(emptied),
            world.release.refusal(merged(world.values, {"rollout": {"falseRollback": 0.02}})),
        ]
        (pod,) = chart.pods(**{"tabserve/gate": "lost"})
        chart.kill(pod)
        killed = time.monotonic()
        wait_until_only(world.seen, world.a)
        back_after = time.monotonic() - killed
        api.wait(
            "another pod",
            lambda: "" if {*chart.pods(**{"tabserve/gate": "lost"})} - {pod} else "none",
            60,
            chart.explain,
        )
        wait_for_phase("lost", "step", 50)
        few = world.seen.share(world.b)
        api.wait("b again", lambda: "" if world.seen.share(world.b) > few + 100 else "few", 120, chart.explain)
        found = state("lost")
        stopped = rollout("stop", "lost")
        wait_until_only(world.seen, world.a)
        wait_for_phase("lost", "back", 0, 60)
        told(world.seen, found, began)
        print(f"all at stable {back_after:.1f} s after the gate's pod was killed")
        failures = world.seen.failures()

    assert failures == []
    assert world.seen.mixed() == []
    assert "ERROR: slot b has traffic from the gate's route lost-rollout and would be emptied" in refusals[0]
    assert "ERROR: the gate gives slot b 50 %, and its settings or a release would be changed" in refusals[1]
    assert "the gate has a new pod" in [change.why for change in found.changes]
    assert stopped.stdout == "All traffic is what the chart's values say.\n"
    assert back_after < 30
    assert state_is_gone("lost")


def test_nothing_is_left_after_an_uninstall_in_mid_step(bundle: Path, tmp_path: Path) -> None:
    with gated("half", bundle, tmp_path, steps=[50], calibrate="0s") as world:
        wait_for_phase("half", "step", 50)
        world.release.uninstall()

    assert state_is_gone("half")
    labels = {"tabserve/gate": "half"}
    api.wait("pods gone", lambda: ", ".join(chart.pods(**labels)), 60, chart.explain)
    for kind in ("Role", "RoleBinding"):
        assert not connect().exists("rbac.authorization.k8s.io/v1", kind, "half-rollout", NAMESPACE)
