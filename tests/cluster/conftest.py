"""What the cluster tests share: the cluster under test and a bundle. Without a cluster they are skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.testbed import api
from tests.cluster.testbed.places import KUBECONFIG, PROJECT


@pytest.fixture(scope="session")
def cluster() -> api.Cluster:
    """The cluster that TABSERVE_KUBECONFIG names, or else the testbed; one that is there must answer."""
    given = os.environ.get("TABSERVE_KUBECONFIG")
    if not given and not KUBECONFIG.exists():
        pytest.skip(f"no cluster: {KUBECONFIG} does not exist; `make cluster-up` makes one")
    found = api.Cluster(Path(given or KUBECONFIG))
    found.request("GET", "/version")
    return found


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the bundle breast_cancer, trained now."""
    folder = tmp_path_factory.mktemp("bundles") / "breast_cancer"
    subprocess.run([sys.executable, PROJECT / "examples" / "breast_cancer" / "train.py", folder], check=True)
    return folder
