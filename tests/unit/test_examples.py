from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import tabserve.bundle
from tests.selection import often
from tests.serving import ROOT

EXAMPLES = ("breast_cancer", "diabetes", "payments", "wine")


def test_every_example_is_tested() -> None:
    assert tuple(sorted(path.parent.name for path in ROOT.glob("examples/*/train.py"))) == EXAMPLES


@pytest.mark.parametrize("name", often(EXAMPLES, ["wine"]))
def test_an_example_trains_and_saves_a_bundle_that_passes_its_check(name: str, tmp_path: Path) -> None:
    script = ROOT / "examples" / name / "train.py"
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    folder = tmp_path / "bundles" / name
    assert f"saved {folder.relative_to(tmp_path)}, sha256:" in done.stdout
    assert [finding for finding in tabserve.bundle.check(folder) if not finding.ok] == []
    bundle = tabserve.bundle.load(folder)
    assert bundle.manifest.name == name.replace("_", "-")
    assert len(script.read_text().splitlines()) <= 65


def test_the_folder_may_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", str(tmp_path / "elsewhere")])
    runpy.run_path(str(ROOT / "examples" / "diabetes" / "train.py"), run_name="__main__")
    assert tabserve.bundle.load(tmp_path / "elsewhere").manifest.task == "regression"
