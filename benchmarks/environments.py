"""Install an environment for each group of peers from its lock, and keep it under the lock's digest."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks import cache

PEERS = Path(__file__).parent / "peers"
OURS = "tabserve"
"""The name of the environment that runs this program."""
WITHOUT_TRACING = "tabserve-without-tracing"
"""The name of one that has all of ours but the libraries of the extra `tracing`, and not tabserve itself."""
GENERATOR = Path(__file__).parent / "generator"


def python(name: str) -> Path:
    """The Python of an environment, which is installed on first use; OURS is there.

    Raises subprocess.CalledProcessError if it can't be installed.
    """
    if name == OURS:
        return Path(sys.executable)
    if name == WITHOUT_TRACING:
        return of_lock(without("opentelemetry-", cache.folder("environments") / f"{name}.lock"))
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


def without(prefix: str, lock: Path) -> Path:
    """Our own lock without the distributions whose names begin so, written to a file."""
    entries = re.split(r"^(?=\S)", (cache.ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)
    lock.write_text("".join(each for each in entries if not each.startswith(prefix)))
    return lock


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
