"""A release made twice has the same wheel and chart, and says what it did not do (make long-release)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from release import packing
from release.images import TARGETS
from tabserve import __version__
from tests.chart.helm import program
from tests.cluster.testbed.build import KUBERNETES
from tests.serving import ROOT
from tests.unit.test_release import FILES, PURLS, archive

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


def test_images_are_built_on_the_pinned_base_and_each_has_its_bill(tmp_path: Path) -> None:
    built = archive(tmp_path / "image.tar", FILES, oci=False)
    builder, log = tmp_path / "engine", tmp_path / "log"
    builder.write_text(f'#!/bin/sh\necho "$@" >> {log}\n[ "$1" = build ] || cp {built} "$3"\n')
    builder.chmod(0o755)
    base = f"registry.example/python@sha256:{'1' * 64}"
    out = tmp_path / "dist"
    released(out, "--builder", str(builder), "--base-image", base)
    commands = [line for line in log.read_text().splitlines() if line.startswith("build ")]
    made = {path.name for path in out.iterdir()}
    statement = json.loads((out / "provenance.intoto.json").read_bytes())

    wanted = [f"--build-arg BASE_IMAGE={base} --target {target} -t" for target in TARGETS]
    assert [line for line in wanted if not any(line in command for command in commands)] == []
    for target in TARGETS:
        names = {f"tabserve-{target}-{__version__}.tar", f"tabserve-{target}-{__version__}.cdx.json"}
        assert names <= made & {each["name"] for each in statement["subject"]}
        bill = json.loads((out / f"tabserve-{target}-{__version__}.cdx.json").read_bytes())
        assert {each["purl"] for each in bill["components"]} == PURLS
    came = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {"uri": "docker://registry.example/python", "digest": {"sha256": "1" * 64}} in came
