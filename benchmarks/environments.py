"""Install an environment for each group of peers from its lock, and keep it under the lock's digest."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks import cache

PEERS = Path(__file__).parent / "peers"
OURS = "tabserve"
"""The name of the environment that runs this program."""
GENERATOR = Path(__file__).parent / "generator"


def python(name: str) -> Path:
    """The Python of an environment, which is installed on first use; `tabserve` is our own.

    Raises subprocess.CalledProcessError if it can't be installed.
    """
    if name == OURS:
        return Path(sys.executable)
    return of_lock(PEERS / f"{name}.lock")


def of_lock(lock: Path) -> Path:
    """The Python of an environment that has what a lock names. Raises subprocess.CalledProcessError."""
    folder = cache.folder("environments") / f"{lock.stem}-{cache.key([lock], sys.version)}"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run(_uv(), "venv", "-q", "--python", sys.executable, str(folder))
        _run(_uv(), "pip", "sync", "-q", "--python", str(folder / "bin/python"), "--require-hashes", str(lock))
        (folder / "ready").touch()
    return folder / "bin/python"


def generator() -> Path:
    """The load generator, built when its sources change. Raises subprocess.CalledProcessError."""
    sources = [*GENERATOR.glob("*.go"), GENERATOR / "go.mod", GENERATOR / "go.sum"]
    binary = cache.folder("generator") / cache.key(sources)
    if not binary.exists():
        _run("go", "build", "-C", str(GENERATOR), "-o", str(binary), ".")
    return binary


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else "uv"


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
