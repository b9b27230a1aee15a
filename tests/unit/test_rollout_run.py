"""The gate at work on objects in memory: what it writes, in which order, and what it does when others are away."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from tabserve.rollout.errors import RolloutError
from tabserve.rollout.fleet import Fleet, Watcher, lacking
from tabserve.rollout.kube import ORDER, STATE, Api
from tabserve.rollout.moving import WARM_SECONDS
from tabserve.rollout.run import LEAVING_SECONDS, STOPPED, Me, Runner
from tabserve.rollout.scrape import Scrape, parse
from tabserve.rollout.settings import Change, Settings
from tests.unit.gates import SETTINGS, settings
from tests.unit.kubernetes_objects import Objects
from tests.unit.rollout_pods import Pod

ME = Me("gate-1", "uid-1", "fraud-rollout-1", "uid-job")
CORE = "/api/v1/namespaces/models"
ROUTE = "/apis/gateway.networking.k8s.io/v1/namespaces/models/httproutes/fraud-rollout"
MAP = f"{CORE}/configmaps/fraud-rollout"
QUICK = settings(calibrate="0s", change=Change(decisions=None, scores=None))


class World:
    """Objects, pods that count requests, and a clock."""

    def __init__(self) -> None:
        self.objects = Objects()
        self.seconds = 0.0
        self.pods = {"a": Pod(), "b": Pod()}
        for address, letter in enumerate(self.pods, 1):
            for component in ("predictor", "transformer"):
                self.add(letter, component, f"10.0.0.{address}")

    def add(self, letter: str, component: str, address: str) -> None:
        """A pod that is Ready."""
        name = f"fraud-{letter}-{component}"
        release = {"a": SETTINGS.stable, "b": SETTINGS.canary}[letter].release
        labels = {"serving.kserve.io/inferenceservice": f"fraud-{letter}", "component": component}
        metadata = {"name": name, "uid": name, "labels": labels, "annotations": {"tabserve/release": release}}
        status = {"podIP": address, "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        status |= {"containerStatuses": [{"restartCount": 0}]}
        self.objects.put(f"{CORE}/pods/{name}", {"metadata": metadata, "status": status})

    def runner(self, given: Settings = QUICK, me: Me = ME) -> Runner:
        """A gate that reads these pods and objects."""
        watcher = Watcher(given, self.page)
        return Runner(Api(self.objects, "models"), given, me, watcher=watcher, now=lambda: self.seconds, wait=self.wait)

    def wait(self, seconds: float) -> None:
        """Let time pass, in which the gateway accepts the route."""
        self.seconds += seconds
        self.accept()

    def page(self, url: str) -> Scrape:
        """What a pod's page says. Raises RolloutError for any other than the transformers' of both slots."""
        letter = {"http://10.0.0.1:8082/metrics": "a", "http://10.0.0.2:8082/metrics": "b"}[url]
        return parse(self.pods[letter].page(), url)

    def answer(self, canary: int, stable: int, failed: int = 0) -> None:
        """Let the slots answer requests."""
        self.pods["b"].answer(canary - failed)
        self.pods["b"].answer(failed, "500")
        self.pods["a"].answer(stable)

    def tick(self, runner: Runner, ticks: int = 1, *, accept: bool = True, **answered: int) -> int | None:
        """Let ticks pass, in which the gateway accepts the route; returns the exit status of the last."""
        ended = None
        for _ in range(ticks):
            self.seconds += 10
            if accept:
                self.accept()
            if answered:
                self.answer(**answered)
            ended = runner.tick()
        return ended

    def accept(self) -> None:
        """Let the gateway accept the route as it is."""
        if found := self.objects.stored.get(ROUTE):
            fine = [
                {"type": kind, "status": "True", "observedGeneration": found["metadata"]["generation"]}
                for kind in ("Accepted", "ResolvedRefs")
            ]
            found["status"] = {"parents": [{"conditions": fine}]}

    @property
    def route(self) -> tuple[str, str, str]:
        """Whether the route is warming, its weight, and the uid of its owner."""
        metadata = self.objects.stored[ROUTE]["metadata"]
        facts = metadata["annotations"]
        return facts["tabserve/warm"], facts["tabserve/weight"], metadata["ownerReferences"][0]["uid"]

    @property
    def state(self) -> dict[str, Any]:
        """What is kept."""
        found: dict[str, Any] = json.loads(self.objects.stored[MAP]["data"][STATE])
        return found


@pytest.fixture
def world() -> World:
    return World()


def headers(world: World) -> set[str]:
    """The names of the headers that the split's rules ask for."""
    rules = world.objects.stored[ROUTE]["spec"]["rules"][:2]
    return {header["name"] for rule in rules for match in rule["matches"] for header in match.get("headers", [])}


def weights(world: World) -> list[list[tuple[str, int, int]]]:
    """The backends of each rule."""
    rules = world.objects.stored[ROUTE]["spec"]["rules"]
    return [[(ref["name"], ref["port"], ref.get("weight", 1)) for ref in rule["backendRefs"]] for rule in rules]


def test_the_route_is_born_warm_and_then_followed(world: World) -> None:
    runner = world.runner()
    world.tick(runner, 2)
    assert world.route == ("true", "5", "uid-1")
    assert headers(world) == {"tabserve-warming"}
    world.tick(runner, 3, accept=False)
    assert world.route[0] == "true"
    world.tick(runner, 2)

    assert world.route == ("false", "5", "uid-1")
    assert headers(world) == set()
    split = [("fraud-a-transformer", 80, 95), ("fraud-b-transformer", 80, 5)]
    assert weights(world)[0] == split
    assert weights(world)[1] == [(name, 8081, weight) for name, _, weight in split]
    assert weights(world)[2:] == [[("fraud-b-transformer", 80, 1)], [("fraud-b-transformer", 8081, 1)]]


def test_a_failing_canary_is_taken_back_with_its_reason_kept_before_the_route_goes(world: World) -> None:
    runner = world.runner()
    world.tick(runner, 9, canary=5, stable=95)
    ended = world.tick(runner, 20, canary=5, stable=95, failed=2)

    assert ended == 1
    assert ROUTE not in world.objects.stored
    assert world.state["phase"] == "back"
    assert world.objects.stored[MAP]["data"]["told"].startswith("Back: failed requests: ")
    writes = [asked for asked in world.objects.asked if asked[0] != "GET" and "events" not in asked[1]]
    keeping, closing = ("PATCH", "configmaps/fraud-rollout"), ("PATCH", "httproutes/fraud-rollout")
    deleted = writes.index(("DELETE", "httproutes/fraud-rollout"))
    assert writes[deleted - 4 : deleted] == [keeping, closing, keeping, keeping]
    event = world.objects.of("events")[-1]
    assert (event["reason"], event["type"], event["involvedObject"]["name"]) == ("RolloutBack", "Warning", "fraud-b")
    assert world.runner().tick() == 1


def test_the_weight_stays_while_the_api_is_away_and_a_rollback_is_made_up_for(world: World) -> None:
    runner = world.runner()
    world.tick(runner, 9, canary=5, stable=95)
    world.objects.away = True
    assert world.tick(runner, 20, canary=5, stable=95, failed=2) is None
    assert world.route[1] == "5"
    assert runner.away == "no answer"
    world.objects.away = False

    assert world.tick(runner) is None
    assert headers(world) == {"tabserve-warming"}
    assert world.route[:2] == ("true", "0")
    assert world.tick(runner, 3) == 1
    assert ROUTE not in world.objects.stored


def test_a_container_that_is_restarted_goes_on_and_a_new_pod_begins_at_the_first_step(world: World) -> None:
    runner = world.runner()
    for _ in range(150):
        weight = runner.gate.state.weight
        world.tick(runner, canary=weight, stable=100 - weight)
    assert world.route == ("false", "50", "uid-1")
    same = world.runner()
    world.tick(same, 3, canary=50, stable=50)
    assert world.route == ("false", "50", "uid-1")
    other = world.runner(me=Me("gate-2", "uid-2", "fraud-rollout-1", "uid-job"))
    world.tick(other)

    assert world.route == ("false", "5", "uid-2")
    assert world.state["changes"][-1]["why"] == "the gate has a new pod"


def test_a_gate_that_is_stopped_gives_the_traffic_back_and_its_job_makes_another(world: World) -> None:
    runner = world.runner()
    world.tick(runner, 9, canary=5, stable=95)
    stopped = threading.Event()

    def stop() -> None:
        assert ROUTE in world.objects.stored
        stopped.set()

    began = world.seconds
    assert runner.run(stopped, stop) == STOPPED
    assert ROUTE not in world.objects.stored
    assert WARM_SECONDS <= world.seconds - began <= LEAVING_SECONDS
    assert world.state["phase"] == "step"


def gate_pod(**more: Any) -> dict[str, Any]:
    """Another gate's pod."""
    return {"metadata": {"name": "gate-1", "uid": "uid-1"} | more, "status": {"phase": "Running"}}


def test_there_is_one_gate_at_a_time(world: World) -> None:
    world.tick(world.runner())
    other = Me("gate-2", "uid-2", "fraud-rollout-1", "uid-job")
    world.objects.put(f"{CORE}/pods/gate-1", gate_pod())
    with pytest.raises(RolloutError, match="pod gate-1 is already the gate of this release"):
        world.runner(me=other)
    world.objects.put(f"{CORE}/pods/gate-1", gate_pod(deletionTimestamp="now"))
    world.runner(me=other)
    world.objects.put(f"{CORE}/pods/gate-1", gate_pod(uid="another"))
    world.runner(me=other)


@pytest.mark.parametrize("content", ["", "{}", '{"format": 2}'])
def test_a_state_that_is_none_is_refused_and_nothing_moves(world: World, content: str) -> None:
    world.objects.put(MAP, {"metadata": {"name": "fraud-rollout"}, "data": {STATE: content}})
    with pytest.raises(RolloutError, match=r"ConfigMap models/fraud-rollout: .*tabserve rollout forget"):
        world.runner()

    assert {method for method, _ in world.objects.asked} == {"GET"}


def test_orders_in_the_config_map_are_followed_and_do_not_outlive_their_release(world: World) -> None:
    runner = world.runner()
    world.tick(runner, 5, canary=5, stable=95)
    world.objects.stored[MAP]["metadata"]["annotations"] = {ORDER: "back"}
    assert world.tick(runner, 4) == 1
    renewed = settings(calibrate="0s", steps=[30])
    again = world.runner(renewed)
    assert again.gate.ended() == 1
    world.objects.stored[MAP]["data"][STATE] = world.objects.stored[MAP]["data"][STATE].replace("0b" * 8, "0c" * 8)
    fresh = world.runner()
    world.tick(fresh)

    assert world.objects.stored[MAP]["metadata"]["annotations"] == {}
    assert world.state["phase"] == "watch"


def test_the_canary_waits_for_all_pods_of_its_release(world: World) -> None:
    pods = [found for path, found in world.objects.stored.items() if "/pods/" in path]
    mine = [pod for pod in pods if pod["metadata"]["name"].startswith("fraud-b")]
    assert lacking(pods, SETTINGS.canary, SETTINGS) == ""
    mine[0]["status"]["conditions"][0]["status"] = "False"
    assert lacking(pods, SETTINGS.canary, SETTINGS) == "predictor of slot b has 0 of 1 pods Ready"
    mine[0]["metadata"]["annotations"]["tabserve/release"] = "another"
    assert lacking(pods, SETTINGS.canary, SETTINGS).startswith("predictor of slot b has pods of release another, not ")
    assert lacking(pods[:2], SETTINGS.canary, SETTINGS) == "slot b has no predictor"


def test_pods_are_steady_when_some_looks_have_found_the_same_ones_ready(world: World) -> None:
    """A pod that is lost takes along what it has answered since the last look, and so does a process."""
    watcher = Watcher(QUICK, world.page)
    pods = [found for path, found in world.objects.stored.items() if "/pods/" in path]
    looks = [pods] * 4 + [pods[2:], pods, pods, pods]
    assert [watcher.look(each).steady for each in looks] == [False, False, True, True, False, False, False, True]

    world.pods["b"].start += 1
    assert [watcher.look(pods).steady for _ in range(3)] == [False, False, True]
    pods[1]["status"]["conditions"][0]["status"] = "False"
    assert not watcher.look(pods).steady


def look(requests: float, start: float = 1.0) -> Scrape:
    return Scrape(start, {("tabserve_requests_total", (("status", "200"),)): requests})


def test_every_request_of_a_fleet_is_counted_in_the_tick_it_belongs_to() -> None:
    """Pods that come, go, are restarted, or do not answer; the first look at all counts nothing."""
    ticks: list[tuple[dict[str, Scrape | None], dict[str, float]]] = [
        ({"p": look(100), "q": None}, {}),
        ({"p": look(110), "q": look(50)}, {"p": 10}),
        ({"p": look(115), "q": look(57), "r": look(3)}, {"p": 5, "q": 7, "r": 3}),
        ({"p": None, "q": look(4, 2.0), "r": look(9)}, {"q": 4, "r": 6}),
        ({"p": look(125), "q": look(5, 2.0)}, {"p": 10, "q": 1}),
        ({"p": None, "q": None}, {}),
        ({"p": None, "q": None}, {}),
        ({"p": None, "q": look(9, 2.0)}, {"q": 4}),
        ({"p": look(190), "q": look(10, 2.0), "s": None}, {"q": 1}),
        ({"p": look(191), "s": look(70)}, {"p": 1}),
    ]
    fleet = Fleet()
    for pages, counted in ticks:
        found = fleet.counted(pages)
        assert {name: total for name, each in found.items() if (total := sum(each.values()))} == counted
