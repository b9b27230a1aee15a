"""The chart in Standard mode: what it installs answers, over REST and gRPC, as the bundle says it must."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tabserve.client import Client
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, released
from tests.cluster.load import Target
from tests.cluster.testbed.places import STANDARD_PORT

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster")]
GATEWAY = f"127.0.0.1:{STANDARD_PORT}"


def page(target: Target) -> str:
    """What a browser gets at the gateway."""
    with closing(target.connection()) as connection:
        connection.request("GET", "/", headers={"Host": target.host, "Accept": "text/html"})
        return connection.getresponse().read().decode()


@pytest.mark.parametrize("placement", ["separate", "collocated"])
def test_an_installed_bundle_answers_as_it_does_locally(bundle: Path, placement: str) -> None:
    found = bundles.load(bundle)
    given = chart.values("breast-cancer", releases={"a": chart.on_volume(bundle)},
                         transformer={"placement": placement}, page=True)  # fmt: skip
    with released(f"install-{placement}") as release:
        notes = release.apply(given)
        chart.wait_ready(f"{release.name}-a")
        tested = release.test()
        host = f"{release.name}-{NAMESPACE}.example.com"
        target = Target(GATEWAY, host, "breast-cancer", expected.record(found, 0))
        records = [expected.record(found, n) for n in range(9)]
        with Client(f"http://{GATEWAY}", host) as client:
            decisions = client.decide("breast-cancer", records)
        with target.channel() as channel:
            over_grpc = target.grpc(channel)
        over_rest, for_browsers = target.once(), page(target)

    assert host in notes
    assert "Phase:          Succeeded" in tested
    wanted = [expected.decision(found, row) for row in range(9)]
    assert [decision["decision"] for decision in decisions] == [one["decision"] for one in wanted]
    assert [decision["score"] for decision in decisions] == pytest.approx([one["score"] for one in wanted])
    assert (over_rest.status, over_grpc.status) == ("200", "OK")
    assert over_rest.transformer == over_rest.predictor == over_grpc.transformer == over_grpc.predictor != ""
    assert "<h1>breast-cancer <span" in for_browsers


def test_a_predictor_alone_answers_with_the_models_own_outputs(bundle: Path) -> None:
    found = bundles.load(bundle)
    given = chart.values("breast-cancer", releases={"a": chart.on_volume(bundle)}, transformer={"placement": "none"})
    with released("install-none") as release:
        release.apply(given)
        chart.wait_ready(f"{release.name}-a")
        tested = release.test()
        host = f"{release.name}-{NAMESPACE}.example.com"
        records = [expected.record(found, row) for row in range(9)]
        with Client(f"http://{GATEWAY}", host) as client:
            predictions = client.decide("breast-cancer", records)
        target = Target(GATEWAY, host, "breast-cancer", records[0])
        with target.channel() as channel:
            over_grpc = target.grpc(channel)
        installed = chart.release_of(f"{release.name}-a")

    assert "Phase:          Succeeded" in tested
    assert predictions == found.reference.outputs["predict"][:9].tolist()
    assert (over_grpc.status, over_grpc.transformer, over_grpc.predictor) == ("OK", "", installed)
