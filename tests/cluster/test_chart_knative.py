"""The chart in Knative mode, predictor and transformer in one pod: canary, roll back, promotion, and from zero."""

from __future__ import annotations

from pathlib import Path

import pytest

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, connect, merged, released
from tests.cluster.load import Target, constant
from tests.cluster.shares import bounds, wait_for, wait_for_share, wait_until_only
from tests.cluster.testbed import api
from tests.cluster.testbed.places import KNATIVE_PORT

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster")]
GATEWAY = f"127.0.0.1:{KNATIVE_PORT}"
MODEL = "breast-cancer"


def values(bundle: Path, **knative: object) -> chart.Values:
    """Slot `a` in Knative mode."""
    given = chart.values(MODEL, mode="Knative", releases={"a": chart.on_volume(bundle)},
                         knative={"features": chart.FEATURES, **knative})  # fmt: skip
    return merged(given, {"transformer": {"placement": "collocated"}})


def target(release: str, bundle: Path) -> Target:
    """The model behind Knative's gateway."""
    record = expected.record(bundles.load(bundle), 0)
    return Target(GATEWAY, f"{release}-predictor.{NAMESPACE}.example.com", MODEL, record)


def revisions(service: str) -> dict[str, str]:
    """What KServe says about the revisions of an InferenceService."""
    status = connect().get(chart.SERVING, "InferenceService", service, NAMESPACE)["status"]
    found: dict[str, str] = status["components"]["predictor"]
    return found


def wait_for_revision(service: str, number: int) -> None:
    """Wait until the newest revision is this one, and Ready."""
    wanted = f"{service}-predictor-{number:05}"
    api.wait(wanted, lambda: "" if revisions(service).get("latestReadyRevision") == wanted else "not Ready",
             chart.READY_SECONDS, chart.explain)  # fmt: skip


def test_fill_share_roll_back_promote_and_empty_lose_no_request(bundle: Path, tmp_path: Path) -> None:
    second = chart.next_version(bundle, tmp_path / "second")
    only_a = values(bundle)
    filled = merged(only_a, {"releases": {"b": chart.on_volume(second)}, "traffic": {"canary": "b"}})
    shared = merged(filled, {"traffic": {"canaryPercent": 20}})
    promoted = merged(filled, {"traffic": {"stable": "b", "canary": ""}})

    with released("knative") as release:
        first_with_canary = release.refusal(filled)
        release.apply(only_a)
        chart.wait_ready(release.name)
        tested = release.test()
        a = chart.release_of(release.name)
        with constant(target(release.name, bundle), rest=3) as seen:
            release.apply(filled)
            early = release.refusal(shared)
            wait_for_revision(release.name, 2)
            b = chart.release_of(release.name)
            untouched = {*wait_for(seen, 100)}
            release.apply(shared)
            wait_for_share(seen, b)
            counted = wait_for(seen, 1_000)
            release.apply(filled)  # roll back
            wait_until_only(seen, a)
            release.apply(shared)
            wait_for_share(seen, b)
            release.apply(promoted)
            wait_until_only(seen, b)
            release.apply(merged(promoted, {"releases": {"a": None}}))  # empty
            only_b = {*wait_for(seen, 200)}

    low, high = bounds(len(counted), 0.2)
    assert "Phase:          Succeeded" in tested
    assert seen.failures() == []
    assert seen.mixed() == []
    assert untouched == {a}
    assert only_b == {b}
    assert low <= counted.count(b) <= high
    assert "ERROR: on a first install KServe would send the canary all traffic" in first_with_canary
    assert "ERROR: slot b can't be given traffic" in early
