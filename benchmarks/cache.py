"""What is kept between runs: environments, models, payloads; outside the checkout, under a key of their inputs."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent


def folder(name: str) -> Path:
    """The folder of that name in the user's cache; made where it is missing."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = base / "tabserve" / "benchmarks" / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def key(files: Iterable[Path], *extra: str) -> str:
    """A short digest of these files' names and bytes and of `extra`."""
    digest = hashlib.sha256("\0".join(extra).encode())
    for file in sorted(files):
        digest.update(f"\0{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def fill(folder: Path, make: Callable[[Path], None]) -> None:
    """Make a folder with `make`, which is given a draft of it; one that is there is left as it is."""
    if folder.exists():
        return
    draft = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        make(draft)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
