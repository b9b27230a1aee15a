"""Settings under load: of the operation, changed in place; of the answer, a new release for the other slot."""

from __future__ import annotations

from pathlib import Path

import pytest

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, merged, released
from tests.cluster.load import Target, constant
from tests.cluster.shares import wait_for, wait_until_only
from tests.cluster.testbed import api
from tests.cluster.testbed.places import STANDARD_PORT

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster")]
MODEL = "breast-cancer"
SERVICES = ("predictor", "transformer")
OF_A = {"serving.kserve.io/inferenceservice": "settings-a"}
OPERATION = {"pods": {"settings": {"log_level": "debug"}}}
ANSWER = {"predictor": {"settings": {"max_rows": 5_000}}}


def levels() -> set[str]:
    """The log levels that slot `a`'s pods are given; none where a pod has the default."""
    pods = chart.staying(**OF_A)
    containers = [container for pod in pods for container in pod["spec"]["containers"]]
    return {
        str({each["name"]: each.get("value") for each in one["env"]}.get("TABSERVE_LOG_LEVEL")) for one in containers
    }


def replaced(before: set[str]) -> None:
    """Until each of these pods has gone, and those that took their places are Ready."""
    api.wait("new pods", lambda: ", ".join(before & {*chart.pods(**OF_A)}), 180, chart.explain)
    chart.wait_ready("settings-a")


def test_one_of_the_operation_rolls_in_place_and_one_of_the_answer_takes_the_other_slot(bundle: Path) -> None:
    patient = {name: {"preStopSeconds": 10} for name in SERVICES}  # the default: DNS forgets within 7 s
    slot = chart.on_volume(bundle)
    given = merged(chart.values(MODEL, releases={"a": slot}), patient)
    record = expected.record(bundles.load(bundle), 0)
    target = Target(f"127.0.0.1:{STANDARD_PORT}", f"settings-{NAMESPACE}.example.com", MODEL, record)
    with released("settings") as release:
        release.apply(given)
        chart.wait_ready("settings-a")
        a, pods = chart.release_of("settings-a"), {*chart.pods(**OF_A)}
        with constant(target, rest=2, grpc=1) as seen:
            wait_for(seen, 50)
            loud = merged(given, OPERATION)
            release.apply(loud)
            replaced(pods)
            rolled = (chart.release_of("settings-a"), levels(), {*wait_for(seen, 200)})
            in_place = release.refusal(merged(loud, ANSWER))
            filled = merged(loud, {"releases": {"b": {**slot, **ANSWER}}, "traffic": {"canary": "b"}})
            release.apply(filled)
            chart.wait_ready("settings-b")
            b = chart.release_of("settings-b")
            release.apply(merged(filled, {"traffic": {"stable": "b", "canary": ""}}))
            wait_until_only(seen, b)
            wait_for(seen, 100)

    assert len(pods) == len(SERVICES)
    assert rolled == (a, {"debug"}, {a})
    assert b != a
    assert "ERROR: slot a has traffic, and its release would be changed in place" in in_place
    assert seen.failures() == []
    assert seen.mixed() == []
