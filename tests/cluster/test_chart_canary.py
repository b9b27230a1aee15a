"""A canary in Standard mode under constant load, from an empty slot to the old one's end: no request lost or mixed."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, Release, Values, connect, merged, released
from tests.cluster.load import Target, constant
from tests.cluster.shares import bounds, wait_for, wait_for_share, wait_until_only
from tests.cluster.testbed import api
from tests.cluster.testbed.places import STANDARD_PORT

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster")]
GATEWAY = f"127.0.0.1:{STANDARD_PORT}"
MODEL = "breast-cancer"
OF_A = {"serving.kserve.io/inferenceservice": "canary-a"}
FORCED = {"x-tabserve-canary": "always"}


@contextmanager
def stable(name: str, bundle: Path) -> Generator[tuple[Release, Values]]:
    """A release with slot `a` only, Ready, and its values."""
    given = chart.values(MODEL, releases={"a": chart.on_volume(bundle)})
    with released(name) as release:
        release.apply(given)
        chart.wait_ready(f"{name}-a")
        yield release, given


def target(name: str, bundle: Path, **headers: str) -> Target:
    """A release's model behind the gateway."""
    record = expected.record(bundles.load(bundle), 0)
    return Target(GATEWAY, f"{name}-{NAMESPACE}.example.com", MODEL, record, headers)


def test_fill_share_promote_roll_back_and_empty_lose_no_request(bundle: Path, tmp_path: Path) -> None:
    second = chart.next_version(bundle, tmp_path / "second")
    with stable("canary", bundle) as (release, only_a), constant(target("canary", bundle), rest=2, grpc=1) as seen:
        filled = merged(only_a, {"releases": {"b": chart.on_volume(second)}, "traffic": {"canary": "b"}})
        shared = merged(filled, {"traffic": {"canaryPercent": 20}})
        promoted = merged(filled, {"traffic": {"stable": "b", "canary": ""}})
        a = chart.release_of("canary-a")
        release.apply(filled)
        early = release.refusal(shared)
        chart.wait_ready("canary-b")
        b = chart.release_of("canary-b")
        forced = {target("canary", bundle, **FORCED).once().transformer for _ in range(5)}
        untouched = {*wait_for(seen, 100)}
        release.apply(shared)
        wait_for_share(seen, b)
        counted = wait_for(seen, 1_000)
        in_place = release.refusal(merged(shared, {"releases": {"a": chart.on_volume(second)}}))
        release.apply(promoted)
        wait_until_only(seen, b)
        too_early = release.refusal(merged(promoted, {"releases": {"b": None}, "traffic": {"stable": "a"}}))
        release.run("rollback", release.name)  # to the share
        wait_for_share(seen, a)
        release.apply(filled)  # to no share
        wait_until_only(seen, a)
        release.apply(promoted)
        wait_until_only(seen, b)
        release.apply(merged(promoted, {"releases": {"a": None}}))
        api.wait("a gone", lambda: ", ".join(chart.pods(**OF_A)), 90, chart.explain)
        wait_for(seen, 200)

    low, high = bounds(len(counted), 0.2)
    assert seen.failures() == []
    assert seen.mixed() == []
    assert {answer.protocol for answer in seen.answers} == {"REST", "gRPC"}
    assert untouched == {a}
    assert forced == {b}
    assert low <= counted.count(b) <= high
    assert "ERROR: slot b can't be given traffic" in early
    assert "ERROR: slot a has traffic, and its release would be changed in place" in in_place
    assert "ERROR: slot b has traffic and would be emptied" in too_early


def broken(bundle: Path, folder: Path) -> Path:
    """A copy of a bundle whose model file lost its end."""
    shutil.copytree(bundle, folder)
    model = folder / "model.skops"
    model.write_bytes(model.read_bytes()[:-100])
    return folder


def told(service: str) -> tuple[str, str]:
    """Why a predictor ended, from its pods' status and log; KServe's status only says that there is no replica."""
    pods = chart.staying(**{"serving.kserve.io/inferenceservice": service, "component": "predictor"})
    states = [state for pod in pods for state in pod["status"].get("containerStatuses", [])]
    ends = [end for state in states for end in (state["lastState"], state["state"])]
    log = [connect().logs(NAMESPACE, pod["metadata"]["name"], "kserve-container") for pod in pods]
    return " ".join(end.get("terminated", {}).get("message", "") for end in ends), " ".join(log)


def wait_until_told(reason: str, service: str) -> None:
    """Wait until a predictor's status and log hold the reason."""
    api.wait(reason, lambda: "" if all(reason in text for text in told(service)) else "untold", 120, chart.explain)


@pytest.mark.parametrize("fault", ["model", "digest"])
def test_a_broken_release_never_gets_a_share(bundle: Path, tmp_path: Path, fault: str) -> None:
    slot = chart.on_volume(broken(bundle, tmp_path / "broken") if fault == "model" else bundle)
    wrong = {"bundle": {"digest": f"sha256:{'0' * 64}"}} if fault == "digest" else {}
    reason = "model.skops: expected" if fault == "model" else f"expected digest sha256:{'0' * 64}"
    with stable(fault, bundle) as (release, only_a), constant(target(fault, bundle), rest=1) as seen:
        filled = merged(only_a, {"releases": {"b": merged(slot, wrong)}, "traffic": {"canary": "b"}})
        release.apply(filled)
        wait_until_told(reason, f"{fault}-b")
        refused = release.refusal(merged(filled, {"traffic": {"canaryPercent": 20}}))
        wait_for(seen, 50)

    assert f"ERROR: slot b can't be given traffic: InferenceService {fault}-b is not Ready" in refused
    assert seen.failures() == []
    assert seen.mixed() == []
