"""A release made twice has the same wheel and chart, and says what it did not do (make long-release)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from release import packing
from tests.chart.helm import program
from tests.cluster.testbed.build import KUBERNETES
from tests.serving import ROOT

pytestmark = pytest.mark.long


def released(out: Path, *options: str) -> str:
    """Make a release of the last commit; returns what it said."""
    command: list[str | Path] = [sys.executable, "-m", "release", out, "--helm", program(), *options]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_two_releases_of_a_commit_are_the_same(tmp_path: Path) -> None:
    image = ROOT / "tests" / "data"  # a folder without distributions stands for an image's root
    said = [released(tmp_path / name, f"--image={image}") for name in ("first", "second")]
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("first", "second")
    )

    assert first == second
    assert {Path(name).suffix for name in first} == {".whl", ".tgz", ".json", ""}
    assert "was not scanned" in said[0]
    assert "No images were built" in said[0]
    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "first", check=False)
    assert done.returncode == 0
    assert packing.commit(ROOT) in first["provenance.intoto.json"].decode()


def test_the_wheel_holds_every_package_and_the_chart_installs(tmp_path: Path) -> None:
    released(tmp_path / "dist")
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (chart,) = (tmp_path / "dist").glob("*.tgz")
    listed = subprocess.run([sys.executable, "-m", "zipfile", "-l", wheel], check=True, capture_output=True, text=True)
    command: list[str | Path] = [
        program(),
        "template",
        "fraud",
        chart,
        "--kube-version",
        KUBERNETES,
        "--set",
        f"modelName=m,releases.a.bundle.digest=sha256:{'0' * 64}",
    ]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True)

    for package in ("tabserve", "tabserve_predictor", "tabserve_transformer", "tabserve_loadtest"):
        assert f"{package}/__init__.py" in listed.stdout
    assert "kind: InferenceService" in rendered.stdout
