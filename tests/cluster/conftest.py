"""Fixtures of the cluster tests: the cluster under test and a bundle. Without a cluster the tests are skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.testbed import api
from tests.cluster.testbed.places import KUBECONFIG, PROJECT
from tests.cluster.testbed.process import run


@pytest.fixture(scope="session")
def cluster() -> api.Cluster:
    """The cluster that TABSERVE_KUBECONFIG names, or else the testbed; if there is one, it must answer."""
    given = os.environ.get("TABSERVE_KUBECONFIG")
    if not given and not KUBECONFIG.exists():
        pytest.skip(f"no cluster: {KUBECONFIG} does not exist; `make cluster-up` makes one")
    found = api.Cluster(Path(given or KUBECONFIG))
    found.request("GET", "/version")
    return found


@pytest.fixture
def testbed() -> Callable[[str], str]:
    """Run a command of the testbed, `up` or `down`, for tests that stop a part of the cluster, which must be ours."""
    if os.environ.get("TABSERVE_KUBECONFIG"):
        pytest.skip("TABSERVE_KUBECONFIG names a cluster that is not ours to stop")
    if not KUBECONFIG.exists():
        pytest.skip(f"no testbed: {KUBECONFIG} does not exist; `make cluster-up` makes one")
    return lambda command: run(sys.executable, "-m", "tests.cluster.testbed", command, cwd=PROJECT)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the bundle breast_cancer, trained now."""
    folder = tmp_path_factory.mktemp("bundles") / "breast_cancer"
    subprocess.run([sys.executable, PROJECT / "examples" / "breast_cancer" / "train.py", folder], check=True)
    return folder
