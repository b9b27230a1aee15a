"""What happens around a rollout: pods that are killed, scaled and restarted, traffic that ends, a gate that hangs."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, connect, merged
from tests.cluster.gates import (
    EATS_FORCED,
    FAILS,
    FAILS_FORCED,
    FORCED,
    ROUTE,
    World,
    events,
    gate_pods,
    gate_process,
    gated,
    injected,
    passing,
    rollout,
    state,
    told,
    wait_for_phase,
    wait_for_share,
)
from tests.cluster.load import Target, constant
from tests.cluster.shares import wait_for, wait_until_only
from tests.cluster.testbed import api
from tests.cluster.testbed.places import API_PORT

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.usefixtures("cluster")]
SAME_SECONDS = 60 * int(os.environ.get("MINUTES", "30"))
"""How long two releases that are the same are compared while pods come and go."""
WINDOW_SECONDS = 40
"""How long a gate hangs, which is less than its liveness probe allows."""


@pytest.fixture
def second(bundle: Path, tmp_path: Path) -> Path:
    """Version 2 of the bundle, which answers the same."""
    return chart.next_version(bundle, tmp_path / "second")


def transformers(service: str) -> dict[str, str]:
    """The labels of a slot's transformers."""
    return {"serving.kserve.io/inferenceservice": service, "component": "transformer"}


def forced(world: World) -> Target:
    """The canary, whatever its share."""
    target = world.target
    target.headers = FORCED
    target.record = {}
    return target


def restarted(service: str) -> list[str]:
    """Why containers of a slot's transformers ended, once for each restart of a container."""
    states = [each for pod in chart.staying(**transformers(service)) for each in pod["status"]["containerStatuses"]]
    return [each["lastState"]["terminated"]["reason"] for each in states for _ in range(each["restartCount"])]


def eat(world: World, restarts: int) -> None:
    """Have a pod of the canary take more memory than it may, and wait until all are Ready again."""
    forced(world).once()
    service = f"{world.release.name}-b"
    api.wait("a restart", lambda: "" if len(restarted(service)) >= restarts else "none", 60, chart.explain)
    chart.wait_for_pods(2, transformers(service))


def test_a_canary_that_is_killed_for_its_memory_is_taken_back_and_a_pod_of_stable_is_not_its_fault(
    bundle: Path, second: Path
) -> None:
    two = {"transformer": {"replicas": 2}}
    changes = merged(injected("eaten", EATS_FORCED), two)
    with gated("eaten", bundle, second, changes, grpc=0, steps=[50]) as world:
        wait_for_phase("eaten", "step", 50)
        wait_for_share(world)
        chart.kill(chart.pods(**transformers("eaten-a"))[0])
        chart.wait_for_pods(2, transformers("eaten-a"))
        after_stable = passing("eaten", 60)
        eat(world, 1)
        after_one = state("eaten")
        eat(world, 2)
        reasons = restarted("eaten-b")
        found = wait_for_phase("eaten", "back", 0, 60)
        wait_until_only(world.seen, world.a)
        told(world, found)

    assert {after_stable.weight, after_one.weight} == {50}
    assert reasons == ["OOMKilled", "OOMKilled"]
    assert found.told == "Back: the canary's containers were restarted 2 times, and stable's never."


def scaled(count: int) -> chart.Values:
    """Values with which the autoscaler keeps so many transformers in both slots."""
    return {"transformer": {"autoscaling": {"enabled": True, "minReplicas": count, "maxReplicas": count}}}


def come_and_go(world: World, turn: int) -> None:
    """The autoscaler changes the pods of both slots from one to two, or back; then those of stable are restarted."""
    name, pods = world.release.name, 1 + (turn + 1) % 2
    size = scaled(pods)
    wait_for_share(world)
    world.release.apply(merged(world.values, size))
    for slot in "ab":
        chart.wait_for_pods(pods, transformers(f"{name}-{slot}"))
    passing(name, 20)
    restart = {"releases": {"a": {"transformer": {"podAnnotations": {"restarted": str(turn)}}}}}
    world.release.apply(merged(world.values, merged(size, restart)))
    chart.wait_ready(f"{name}-a")
    passing(name, 20)


def test_pods_that_come_and_go_are_no_reason_to_take_a_good_release_back(bundle: Path, second: Path) -> None:
    with gated("moving", bundle, second, scaled(1)) as world:
        wait_for_phase("moving", "step", 20)
        began = time.monotonic()
        turns = count()
        while time.monotonic() - began < SAME_SECONDS:
            come_and_go(world, next(turns))
        found = wait_for_phase("moving", "held", 50)
        stopped = rollout("stop", "moving")
        wait_until_only(world.seen, world.a)
        told(world, found)
        print(f"pods came and went {next(turns)} times in {time.monotonic() - began:.0f} s")

    assert world.seen.failures() == []
    assert world.seen.mixed() == []
    assert stopped.stdout == "All traffic is what the chart's values say.\n"


def test_forced_requests_are_not_judged_and_without_traffic_no_step_is_taken(bundle: Path, second: Path) -> None:
    with gated("quiet", bundle, second, injected("quiet", FAILS_FORCED)) as world:
        wait_for_phase("quiet", "step", 20)
        with constant(forced(world), rest=1) as sent:
            passing("quiet", 70)
        before = state("quiet")
        world.seen.paused.set()
        passing("quiet", 320)
        silent, happened = state("quiet"), events("quiet")
        world.seen.paused.clear()
        found = wait_for_phase("quiet", "step", 50, 120)
        told(world, found)

    assert world.seen.failures() == []
    assert {answer.status for answer in sent.answers} == {"500"}
    assert len(sent.answers) > 500
    assert [(each.phase, each.weight) for each in (before, silent)] == [("step", 20)] * 2
    assert "NoTraffic" in [reason for reason, _ in happened]


class Turn(NamedTuple):
    """What clients saw for some time, in milliseconds, and what the gateway then had, in MiB."""

    p50: float
    p99: float
    memory: float


def percentiles(world: World, seconds: float = WINDOW_SECONDS) -> tuple[float, float]:
    """Median and p99 of the next seconds' answers, in milliseconds."""
    began = time.monotonic()
    api.wait("a window", lambda: "" if time.monotonic() - began > seconds else "not yet", 2 * seconds, chart.explain)
    found = sorted(1000 * answer.seconds for answer in world.seen.since(began))
    return statistics.median(found), found[int(0.99 * len(found))]


def gateway_memory() -> float:
    """MiB that the gateway's Envoy has."""
    for found in Path("/proc").glob("[0-9]*"):
        if b"kserve/kserve-ingress-gateway" in (found / "cmdline").read_bytes():
            (line,) = [line for line in (found / "status").read_text().splitlines() if line.startswith("VmRSS")]
            return int(line.split()[1]) / 1024
    raise LookupError("no Envoy of the gateway")


@pytest.mark.usefixtures("testbed")
def test_a_gate_that_hangs_costs_clients_nothing(bundle: Path, second: Path) -> None:
    turns: dict[str, list[Turn]] = {"works": [], "hangs": []}
    shadow = {"percent": 100, "pairs": 1_000_000}
    with gated("hung", bundle, second, grpc=0, shadow=shadow) as world:
        wait_for_phase("hung", "shadow", 0)
        passing("hung", 60)
        process = gate_process(*gate_pods("hung"))
        for what, number in (("works", 0), ("hangs", signal.SIGSTOP), ("works", signal.SIGCONT),
                             ("hangs", signal.SIGSTOP), ("works", signal.SIGCONT)):  # fmt: skip
            os.kill(process, number)
            turn = Turn(*percentiles(world), gateway_memory())
            turns[what].append(turn)
            print(f"\nthe gate {what}: p50 {turn.p50:.1f} ms, p99 {turn.p99:.1f} ms, Envoy {turn.memory:.0f} MiB")
        found = passing("hung", 10)
        told(world, found)

    assert world.seen.failures() == []
    for name in ("p50", "p99"):
        hung, worked = ([getattr(turn, name) for turn in turns[what]] for what in ("hangs", "works"))
        assert min(hung) <= 1.5 * max(worked)
    assert turns["works"][-1].memory - turns["works"][0].memory < 64


@contextmanager
def without_api(pod: str) -> Generator[None]:
    """Drop what a pod sends to the API server, until the block is left."""
    (address,) = [each["status"]["podIP"] for each in chart.staying(**{"tabserve/gate": "away"})
                  if each["metadata"]["name"] == pod]  # fmt: skip
    rule = ["-s", address, "-p", "tcp", "--dport", str(API_PORT), "-j", "DROP"]
    subprocess.run(["iptables", "-w", "-I", "INPUT", *rule], check=True)
    try:
        yield
    finally:
        subprocess.run(["iptables", "-w", "-D", "INPUT", *rule], check=True)


@pytest.mark.usefixtures("testbed")
def test_a_rollback_is_made_up_for_when_the_api_server_is_back(bundle: Path, second: Path) -> None:
    with gated("away", bundle, second, injected("away", FAILS), steps=[50]) as world:
        wait_for_phase("away", "step", 50)
        before = passing("away", 25)  # the gateway is seen to follow, and nothing has been counted yet
        (pod,) = gate_pods("away")
        with without_api(pod):
            percentiles(world, 120)
            meanwhile = state("away")
            route = connect().get(*ROUTE, "away-rollout", NAMESPACE)["metadata"]["annotations"]["tabserve/weight"]
            wait_for_share(world)
        found = wait_for_phase("away", "back", 0, 90)
        wait_until_only(world.seen, world.a)
        wait_for(world.seen, 100)
        told(world, found)

    assert (meanwhile.phase, route) == ("step", "50")
    assert found.told.startswith("Back: failed requests: ")
    assert found.changes[-1].at - before.seconds < 120
    assert {answer.transformer for answer in world.seen.answers[-100:]} == {world.a}
