"""Keep environments, models and payloads between runs, outside the checkout, under a key of their inputs."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent


def folder(name: str) -> Path:
    """The folder with this name in the user's cache; it is made if it is missing."""
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
    """Make a folder with `make`, which fills a draft of it; a folder that exists stays as it is."""
    if folder.exists():
        return
    draft = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        make(draft)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
