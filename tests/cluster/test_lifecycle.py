"""`down` leaves nothing behind, and `up` comes back, as often as one likes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.cluster.testbed import api, firewall, host
from tests.cluster.testbed.places import KUBECONFIG, PROJECT

pytestmark = [pytest.mark.cluster, pytest.mark.long]


def run_testbed(command: str) -> str:
    """Run a command of the testbed and return what it printed."""
    arguments = [sys.executable, "-m", "tests.cluster.testbed", command]
    done = subprocess.run(arguments, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def own_testbed() -> Generator[None]:
    """The testbed is ours to end; the test leaves it up, with both service images."""
    if os.environ.get("TABSERVE_KUBECONFIG"):
        pytest.skip("TABSERVE_KUBECONFIG names a cluster that is not ours to end")
    if not KUBECONFIG.exists():
        pytest.skip(f"no testbed: {KUBECONFIG} does not exist; `make cluster-up` makes one")
    yield
    run_testbed("up")
    run_testbed("images")


def machine() -> dict[str, object]:
    """What a cluster could change on the machine."""
    return {
        "mounts": host.mounts(),
        "links": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "rules": firewall.rules(),
        "cgroups": sorted(map(str, Path("/sys/fs/cgroup").glob("*/*/"))),  # below these, others' come and go
        "sysctls": {name: host.sysctl(name).read_text() for name in host.SYSCTLS if host.sysctl(name).exists()},
        "folders": [str(folder) for folder in host.FOLDERS if folder.exists()],
    }


def test_down_leaves_nothing_and_up_comes_back_three_times(own_testbed: None) -> None:
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


def test_up_does_nothing_when_all_is_up(own_testbed: None) -> None:
    run_testbed("up")
    assert run_testbed("up").startswith("ready: 0 things done")
