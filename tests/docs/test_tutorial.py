"""docs/tutorial.md does what it says: its first pages in every run, the whole of it in a new environment on request."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tabserve.cli import main
from tests.docs.blocks import Command, consoles, files
from tests.docs.test_pages import HTTP
from tests.serving import ROOT, free_port

PAGE = (ROOT / "docs" / "tutorial.md").read_text()
INSTALL, RECORDS, DRAFT, TRAIN, SAVE, UP, ASK, WRONG = consoles(PAGE)
SECONDS = 900
SYSTEMS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "aarch64-apple-darwin", "x86_64-pc-windows-msvc")


def written(folder: Path) -> Path:
    """A folder with the page's files."""
    for name, content in files(PAGE).items():
        (folder / name).write_text(content)
    return folder


def test_from_a_csv_file_to_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's commands up to `save`, in this process."""
    monkeypatch.chdir(written(tmp_path))
    runpy.run_path("members.py")
    assert RECORDS[1].line == "head -3 members.csv"
    assert RECORDS[1].prints("\n".join(Path("members.csv").read_text().splitlines()[:3]))
    assert told(DRAFT[0]) == DRAFT[0].expected
    runpy.run_path("train.py")
    assert SAVE[0].prints(told(SAVE[0]))


def told(command: Command) -> str:
    """What a command of ours prints, run in this process."""
    name, *arguments = command.line.split()
    assert name == "tabserve"
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout.rstrip("\n")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository's files, with the page's environment in it; prints how long that took."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(lambda name: (ROOT / name).is_file(), listed.splitlines()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    started = time.monotonic()
    execute(INSTALL, folder, os.environ["PATH"])
    print(f"\ninstalled in {time.monotonic() - started:.0f} s")
    return folder


def path_of(checkout: Path) -> str:
    """The search path where the environment is active."""
    return f"{checkout / 'env' / 'bin'}:{os.environ['PATH']}"


@pytest.mark.long
def test_the_whole_page_in_a_new_environment(checkout: Path, tmp_path: Path) -> None:
    started, path = time.monotonic(), path_of(checkout)
    folder = written(tmp_path)
    for block in (RECORDS, DRAFT, TRAIN, SAVE, UP):
        execute(block, folder, path)
    print(f"\nfrom a CSV file to a decision in {time.monotonic() - started:.0f} s")
    http = free_port()
    up = ["tabserve", "up", "members", f"--http-port={http}", f"--grpc-port={free_port()}"]
    environment = {"PATH": path, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(up, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert any("Serving until Ctrl-C" in line for line in process.stdout)
        for block in (ASK, WRONG):
            asked = [Command(command.line.replace(HTTP, f"127.0.0.1:{http}"), command.expected) for command in block]
            execute(asked, folder, path)
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.long
def test_a_wheel_is_made_and_installed_as_the_page_says(checkout: Path) -> None:
    page = (ROOT / "docs" / "install.md").read_text()
    _, wheel, _ = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    execute([Command(line, "…") for line in wheel.splitlines()], checkout, path_of(checkout))


@pytest.mark.long
def test_the_remedies_for_two_xgboosts_work(checkout: Path) -> None:
    path = path_of(checkout)
    look = ["python", "-c", "from tabserve.bundle import libraries; libraries.verify_whole('xgboost'); import xgboost"]

    def looked() -> str:
        done = subprocess.run(look, cwd=checkout, env={"PATH": path}, capture_output=True, text=True)
        return "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]

    def follow(remedy: str) -> None:
        execute([Command(remedy.removesuffix("."), "…")], checkout, path)

    assert looked() == ""
    follow("pip install -q --no-deps xgboost==3.1.3")
    assert "xgboost 3.1.3 and xgboost-cpu " in looked()
    follow(looked().partition("Keep one of them: ")[2])
    assert looked() == ""
    follow("pip install -q --no-deps xgboost==3.1.3 && pip uninstall -q -y xgboost")
    assert "the files of xgboost-cpu " in looked()
    follow(looked().partition("Install it again: ")[2])
    assert looked() == ""


def execute(commands: list[Command], folder: Path, path: str) -> None:
    """Run commands with this search path, and compare what they print."""
    for command in commands:
        environment = {"PATH": path, "HOME": os.environ.get("HOME", str(folder))}
        environment |= {
            name: value for name, value in os.environ.items() if name.lower().endswith(("_proxy", "index_url"))
        }
        line = ["bash", "-c", command.line]
        used = environment | {"PATH": path}
        done = subprocess.run(line, cwd=folder, env=used, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, f"$ {command.line}\n{done.stdout}\n{done.stderr}"
        assert command.prints(done.stdout.rstrip("\n")), f"$ {command.line}\n{command.expected}\ngot: {done.stdout}"


@pytest.mark.long
@pytest.mark.parametrize("python", ["3.11", "3.13"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_extras_resolve_on_every_system_of_the_page(system: str, python: str) -> None:
    """Asks the package index; every dependency must have a wheel there."""
    uv = Path(sys.executable).parent / "uv"
    options = [f"--python-platform={system}", f"--python-version={python}", "--only-binary=:all:", "--no-header", "-q"]
    extras = [f"--extra={name}" for name in ("train", "serve", "batch")]
    done = subprocess.run(
        [uv, "pip", "compile", "pyproject.toml", *options, *extras], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    names = {line.partition("==")[0] for line in done.stdout.splitlines()}
    assert {"xgboost", "xgboost-cpu"} & names == {"xgboost" if "darwin" in system else "xgboost-cpu"}
    assert ("uvloop" in names) is ("windows" not in system)
    assert "nvidia-nccl-cu13" not in names


@pytest.mark.long
def test_saving_and_checking_need_nothing_of_the_services(tmp_path: Path) -> None:
    """As where uvloop has no wheel."""
    code = f"""
import os, runpy, sys
sys.modules["uvloop"] = sys.modules["httptools"] = None
os.chdir({str(written(tmp_path))!r})
runpy.run_path("members.py")
runpy.run_path("train.py")
from tabserve.cli import main
main({SAVE[0].line.split()[1:]}, standalone_mode=False)
main({SAVE[1].line.split()[1:]})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert SAVE[1].prints(done.stdout.rstrip("\n").partition("\n")[2].partition("\n")[2])
