"""Everything that is installed has our name, and nothing in the user's folder is taken for it."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tabserve.bundle
import tabserve.train
from tests.serving import ROOT, Service
from tests.unit.bundles import records, schema

TABSERVE = str(Path(sys.executable).parent / "tabserve")
DISTRIBUTED = ("tabserve", "predictor", "transformer", "loadtest")
OF_THE_USER = ("predictor", "transformer", "loadtest", "tabserve", "numpy", "msgspec", "json")
PUBLIC = re.findall(r"^\| `(tabserve\.[\w.]+)` \|", (ROOT / "docs" / "python.md").read_text(), re.MULTILINE)


@pytest.fixture
def folder_of_the_user(tmp_path: Path) -> Path:
    """A folder with files that fail when they are imported."""
    for name in OF_THE_USER:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the user\\'s own {name}.py was imported')\n")
    return tmp_path


def run(folder: Path, *arguments: str) -> str:
    """What the command prints, run in a folder; it ends with status 0."""
    done = subprocess.run([TABSERVE, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_all_that_the_wheel_installs_begins_with_our_name(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in DISTRIBUTED:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    uv = Path(sys.executable).parent / "uv"
    options = ["--wheel", "--no-build-isolation", f"--python={sys.executable}", f"--out-dir={tmp_path}"]
    subprocess.run([uv, "build", *options, source], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = {Path(name).parts[0] for name in zipfile.ZipFile(wheel).namelist()}

    assert {"tabserve", "tabserve_predictor", "tabserve_transformer", "tabserve_loadtest"} < names
    assert [name for name in names if not name.startswith("tabserve")] == []


def test_the_commands_import_nothing_of_the_current_folder(
    folder_of_the_user: Path, bundle: Path, transformer: Service
) -> None:
    assert "FAILED" not in run(folder_of_the_user, "bundle", "check", str(bundle))
    assert "The decision is the expected one." in run(folder_of_the_user, "up", str(bundle), "--check")
    record = '{"radius": 25.38, "texture": 17.33, "perimeter": 184.6, "area": 2019.0, "smoothness": 0.1622, '
    record += '"compactness": 0.6656, "concavity": 0.7119, "concave_points": 0.2654, "symmetry": 0.4601, '
    record += '"fractal_dimension": 0.1189}'
    assert "refer today" in run(folder_of_the_user, "request", transformer.url, "--record", record)


@pytest.mark.parametrize("command", ["predictor", "transformer", "load"])
def test_a_service_of_its_own_imports_nothing_of_the_current_folder(folder_of_the_user: Path, command: str) -> None:
    assert "Usage:" in run(folder_of_the_user, command, "--help")


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_exist_and_are_not_loaded_with_the_package(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys, tabserve; print({module!r} in set(sys.modules) - {{'tabserve'}})"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert loaded.stdout == "False\n"
    assert hasattr(importlib.import_module(module), attribute) or importlib.import_module(name)


def test_the_page_of_public_names_lists_some() -> None:
    assert {"tabserve.train.save", "tabserve.train.features", "tabserve.bundle.load", "tabserve.bundle.check"} < set(
        PUBLIC
    )


def test_the_former_names_work_and_name_the_new_ones(tmp_path: Path) -> None:
    path = schema(tmp_path)
    with pytest.warns(DeprecationWarning, match=r"tabserve\.bundle\.features is now tabserve\.train\.features"):
        former = tabserve.bundle.features(path, records())
    assert former.equals(tabserve.train.features(path, records()))
    moved = pytest.warns(DeprecationWarning, match=r"tabserve\.bundle\.save is now tabserve\.train\.save")
    with moved, pytest.raises(tabserve.bundle.BundleError, match="expected a scikit-learn, XGBoost or LightGBM model"):
        tabserve.bundle.save(object(), tmp_path / "b", name="m", version="1", schema=path, sample=records())
