"""Our programs report nothing to a vendor: ONNX Runtime does from 1.29 on unless it is switched off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.linear_model import LogisticRegression

from tests.serving import ROOT
from tests.unit.bundles import saved

NOWHERE = "http://127.0.0.1:9"  # the control's reports must not leave the machine that runs the tests
SAVE = """
import sys
from pathlib import Path
from sklearn.linear_model import LogisticRegression
from tests.unit.bundles import saved
saved(LogisticRegression(), Path(sys.argv[1]), engine="onnxruntime")
"""


def left_by(home: Path, *arguments: str | Path) -> list[str]:
    """Files in a new HOME after `python ARGUMENTS`. No variable is inherited: in CI, ONNX Runtime reports nothing."""
    home.mkdir()
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "https_proxy": NOWHERE}
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return [path.name for path in home.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that ONNX Runtime serves."""
    return saved(LogisticRegression(), tmp_path_factory.mktemp("converted"), engine="onnxruntime").path


def test_onnxruntime_keeps_reports_in_home_where_nothing_is_said(tmp_path: Path) -> None:
    assert "onnxruntime.db" in left_by(tmp_path / "home", "-c", "import onnxruntime")


def test_services_leave_nothing_in_home(converted: Path, tmp_path: Path) -> None:
    assert left_by(tmp_path / "home", "-m", "tabserve.cli", "up", converted, "--check") == []


def test_saving_leaves_nothing_in_home(tmp_path: Path) -> None:
    assert left_by(tmp_path / "home", "-c", SAVE, tmp_path) == []


def test_asking_for_its_errors_first_leaves_nothing_in_home(tmp_path: Path) -> None:
    code = "from tabserve.engines.onnxruntime import errors; errors()"

    assert left_by(tmp_path / "home", "-c", code) == []
