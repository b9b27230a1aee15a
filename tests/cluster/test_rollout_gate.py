"""The gate under constant load: a good release is promoted, a bad one taken back, and nothing is lost with a gate."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, Release, connect, merged
from tests.cluster.gates import (
    FAILS,
    ROUTE,
    World,
    events,
    gate_pods,
    gate_process,
    gated,
    injected,
    jobs,
    passing,
    rollout,
    state,
    told,
    wait_for_phase,
    wait_for_share,
    wait_until_gone,
)
from tests.cluster.shares import wait_for, wait_until_only
from tests.cluster.testbed import api, build
from tests.cluster.testbed.places import PROJECT

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.usefixtures("cluster")]
Object = dict[str, Any]


@pytest.fixture
def second(bundle: Path, tmp_path: Path) -> Path:
    """Version 2 of the bundle, which answers the same."""
    return chart.next_version(bundle, tmp_path / "second")


def rendered(release: Release) -> list[Object]:
    """The objects that Helm has applied."""
    return [item for item in yaml.safe_load_all(release.run("get", "manifest", release.name)) if item]


def live(*objects: Object) -> list[str]:
    """What these objects are in the cluster."""
    return [
        plain(connect().get(item["apiVersion"], item["kind"], item["metadata"]["name"], NAMESPACE)) for item in objects
    ]


def after_apply(*objects: Object) -> list[str]:
    """What these objects would be after a server-side apply that takes every field, as Argo CD compares and applies."""
    found = []
    for item in objects:
        path = connect().path(item["apiVersion"], item["kind"], NAMESPACE, item["metadata"]["name"])
        options = "fieldManager=argocd-controller&force=true&dryRun=All"
        found.append(json.loads(connect().request("PATCH", f"{path}?{options}", item, "application/apply-patch+yaml")))
    return [plain(item) for item in found]


def plain(item: Object) -> str:
    """An object as a text, without its status, and without who wrote which field and when."""
    metadata = {
        key: value for key, value in item["metadata"].items() if key not in ("managedFields", "resourceVersion")
    }
    return json.dumps(
        {key: value for key, value in item.items() if key != "status"} | {"metadata": metadata}, sort_keys=True
    )


def managers(name: str) -> set[str]:
    """Who has written fields of the chart's route, but for its status."""
    fields = connect().get(*ROUTE, name, NAMESPACE)["metadata"]["managedFields"]
    return {entry["manager"] for entry in fields if entry.get("subresource") != "status"}


def analysis(name: str) -> list[Object]:
    """The Job of docs/rollout.md's AnalysisTemplate for a release, with its ServiceAccount and the right it needs."""
    page = (PROJECT / "docs" / "rollout.md").read_text()
    (block,) = [text.split("```")[0] for text in page.split("```yaml\n") if text.startswith("apiVersion: argoproj.io")]
    text = block.replace("{{args.release}}", name).replace(
        "tabserve-transformer:0.2.0", "dev.local/tabserve-transformer:dev"
    )
    spec = yaml.safe_load(text)["spec"]["metrics"][0]["provider"]["job"]["spec"]
    account, reader = spec["template"]["spec"]["serviceAccountName"], {"name": "rollout-reader", "namespace": NAMESPACE}
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [f"{name}-rollout"], "verbs": ["get"]}]
    group = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": reader | {"name": account}},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": reader, "rules": rules},
        {"apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": reader,
         "roleRef": {"apiGroup": group, "kind": "Role", "name": "rollout-reader"},
         "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}]},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": reader | {"name": f"{name}-analysis"}, "spec": spec},
    ]  # fmt: skip


def job_ended(name: str) -> str:
    """Which way a Job ended: Complete or Failed; empty as long as it runs."""
    conditions = connect().get("batch/v1", "Job", name, NAMESPACE).get("status", {}).get("conditions", [])
    return next((each["type"] for each in conditions if each["type"] in ("Complete", "Failed")), "")


def wait_for_job(name: str, seconds: float = 120) -> str:
    """Wait until a Job has ended; says which way."""
    api.wait(f"Job {name}", lambda: "" if job_ended(name) else "runs", seconds, chart.explain)
    return job_ended(name)


def test_a_good_release_is_held_at_the_last_step_and_promoted_by_values(bundle: Path, second: Path) -> None:
    route: Object = {"apiVersion": ROUTE[0], "kind": ROUTE[1], "metadata": {"name": "good-rollout"}}
    with gated("good", bundle, second, helm=build.HELM4, shadow={"percent": 50, "pairs": 100}) as world:
        waiting = analysis("good")
        try:
            connect().apply(*waiting)
            wait_for_phase("good", "step", 20)
            wait_for_share(world)
            wrote, before = managers("good"), jobs("good")
            more = merged(world.values, {"transformer": {"resources": {"limits": {"memory": "600Mi"}}}})
            world.release.apply(more)
            objects = rendered(world.release)
            was = live(*objects), live(route)
            applied = after_apply(*objects)
            world.release.apply(more)
            now = live(*objects), live(route)
            found = wait_for_phase("good", "held", 50)
            wrote_then, verdict, argo = managers("good"), rollout("verdict", "good"), wait_for_job("good-analysis")
        finally:
            for item in reversed(waiting):
                connect().delete(item["apiVersion"], item["kind"], item["metadata"]["name"], NAMESPACE)
        world.release.apply(merged(more, {"traffic": {"stable": "b", "canary": ""}}))
        wait_until_only(world.seen, world.b)
        wait_until_gone("good")
        wait_for(world.seen, 200)
        told(world, found)

    assert world.seen.failures() == []
    assert world.seen.mixed() == []
    assert (verdict.returncode, verdict.stdout.startswith("On: held at 50 %.")) == (0, True)
    assert argo == "Complete"
    assert [change.weight for change in found.changes if change.phase == "step"] == [20, 50]
    assert found.copies is not None
    assert found.copies["pairs"] >= 100
    assert len(before) == 1
    assert was[0] == applied
    assert was == now
    assert wrote == wrote_then


def test_a_release_that_fails_is_taken_back_and_not_tried_again(bundle: Path, second: Path, tmp_path: Path) -> None:
    with gated("bad", bundle, second, injected("bad", FAILS)) as world:
        found = wait_for_phase("bad", "back", 0)
        wait_until_only(world.seen, world.a)
        verdict, status = rollout("verdict", "bad"), rollout("status", "bad")
        rollout("report", "bad", "-o", str(tmp_path / "bad.html"))
        (job,) = jobs("bad")
        ended, happened = wait_for_job(job), events("bad")
        world.release.apply(merged(world.values, {"commonLabels": {"again": "yes"}}))
        wait_for(world.seen, 500)
        again = state("bad")
        told(world, found)

    assert {answer.status.partition(" ")[0] for answer in world.seen.failures()} == {"500", "StatusCode.INTERNAL"}
    assert found.told.startswith("Back: failed requests: ")
    assert (verdict.returncode, verdict.stdout.strip()) == (1, found.told)
    assert found.told in status.stdout
    assert found.told.removeprefix("Back: ")[:40] in (tmp_path / "bad.html").read_text()
    assert ("RolloutBack", found.told[:1000]) in happened
    assert ended == "Failed"
    assert {answer.transformer for answer in world.seen.answers[-300:]} == {world.a}
    assert again.changes == found.changes
    wait_until_gone("bad")


def refusals(world: World) -> list[str]:
    """What the chart says to values that empty slot b, that change the gate's settings, and that have no gate."""
    emptied = merged(world.values, {"releases": {"b": {"bundle": {"digest": ""}}}, "traffic": {"canary": ""}})
    return [
        world.release.refusal(emptied),
        world.release.refusal(merged(world.values, {"rollout": {"falseRollback": 0.02}})),
        world.release.refusal(merged(world.values, {"rollout": {"enabled": False}})),
    ]


def back_after(world: World, lost: Callable[[], object]) -> float:
    """Lose the gate; gives the seconds until all traffic is stable's, after the requests at b before have been seen."""
    wait_for_share(world)
    lost()
    began = time.monotonic()
    wait_until_only(world.seen, world.a)
    return time.monotonic() - began


@pytest.mark.usefixtures("testbed")
def test_traffic_is_what_the_values_say_when_the_gate_is_lost_and_what_it_moves_stays(
    bundle: Path, second: Path
) -> None:
    with gated("lost", bundle, second, steps=[50]) as world:
        wait_for_phase("lost", "step", 50)
        wait_for_share(world)
        refused = refusals(world)
        (pod,), was = gate_pods("lost"), connect().get(*ROUTE, "lost-rollout", NAMESPACE)["metadata"]["uid"]
        os.kill(gate_process(pod), signal.SIGKILL)
        goes_on = passing("lost", 30)
        kept = connect().get(*ROUTE, "lost-rollout", NAMESPACE)["metadata"]["uid"]

        seconds = {"its pod deleted": back_after(world, lambda: chart.kill(pod))}
        api.wait("another pod", lambda: "none" if state("lost").pod.startswith(pod) else "", 90, chart.explain)
        anew = wait_for_phase("lost", "step", 50)
        wait_for_share(world)
        (job,), (newer,) = jobs("lost"), gate_pods("lost")
        connect().merge("batch/v1", "Job", job, NAMESPACE, {"spec": {"backoffLimit": 1}})
        seconds["its Job failed"] = back_after(world, lambda: os.kill(gate_process(newer), signal.SIGKILL))
        ended = [wait_for_job(job)]

        forgotten = rollout("forget", "lost")
        world.release.apply(world.values)
        wait_for_phase("lost", "step", 50)
        change = {"spec": {"activeDeadlineSeconds": 1}}
        seconds["its deadline over"] = back_after(
            world, lambda: connect().merge("batch/v1", "Job", job, NAMESPACE, change)
        )
        ended.append(wait_for_job(job))
        told(world, anew)
        print("all at stable after", ", ".join(f"{what} {passed:.1f} s" for what, passed in seconds.items()))

    assert world.seen.failures() == []
    assert world.seen.mixed() == []
    assert "ERROR: slot b has traffic from the gate's route lost-rollout and would be emptied" in refused[0]
    assert "ERROR: the gate gives slot b 50 %, and its settings or a release would be changed" in refused[1]
    assert "ERROR: requests follow the gate's route, and without `rollout` the gate could not take" in refused[2]
    assert (goes_on.phase, goes_on.weight, kept) == ("step", 50, was)
    assert "the gate has a new pod" not in [change.why for change in goes_on.changes]
    assert "the gate has a new pod" in [change.why for change in anew.changes]
    assert forgotten.returncode == 0
    assert ended == ["Failed", "Failed"]
    assert max(seconds.values()) < 30
    wait_until_gone("lost")


def test_nothing_is_left_after_an_uninstall_in_mid_step(bundle: Path, second: Path) -> None:
    with gated("half", bundle, second, steps=[50]) as world:
        wait_for_phase("half", "step", 50)
        wait_for_share(world)
        world.release.uninstall()

    wait_until_gone("half")
    api.wait("pods gone", lambda: ", ".join(gate_pods("half")), 60, chart.explain)
    for kind in ("Role", "RoleBinding"):
        assert not connect().exists("rbac.authorization.k8s.io/v1", kind, "half-rollout", NAMESPACE)
