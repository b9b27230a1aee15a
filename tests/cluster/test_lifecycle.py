"""`down` leaves nothing behind, and `up` works again, any number of times."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from tests.cluster.testbed import api, firewall, host
from tests.cluster.testbed.places import KUBECONFIG

pytestmark = [pytest.mark.cluster, pytest.mark.long]


@pytest.fixture
def run_testbed(testbed: Callable[[str], str]) -> Generator[Callable[[str], str]]:
    """Run commands of the testbed, which is up again after the test, with both service images."""
    yield testbed
    testbed("up")
    testbed("images")


def machine() -> dict[str, object]:
    """Everything on the machine that a cluster could change."""
    return {
        "mounts": host.mounts(),
        "links": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "rules": firewall.rules(),
        "cgroups": sorted(map(str, Path("/sys/fs/cgroup").glob("*/*/"))),  # below these, other programs' come and go
        "sysctls": {name: host.sysctl(name).read_text() for name in host.SYSCTLS if host.sysctl(name).exists()},
        "folders": [str(folder) for folder in host.FOLDERS if folder.exists()],
    }


def test_down_leaves_nothing_and_up_comes_back_three_times(run_testbed: Callable[[str], str]) -> None:
    sysctls = json.loads(host.BEFORE.read_text())["sysctls"]
    run_testbed("down")
    before = machine()

    assert {name: host.sysctl(name).read_text().strip() for name in sysctls} == sysctls
    for _ in range(3):
        run_testbed("up")
        assert api.Cluster(KUBECONFIG).request("GET", "/readyz") == "ok"
        assert host.traces()["processes"] != []
        run_testbed("down")
        assert {kind: found for kind, found in host.traces().items() if found} == {}
        assert machine() == before


def test_up_does_nothing_when_all_is_up(run_testbed: Callable[[str], str]) -> None:
    run_testbed("up")
    assert run_testbed("up").startswith("ready: 0 things done")
