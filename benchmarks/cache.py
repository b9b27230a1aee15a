"""What is kept between runs: environments, models, payloads; outside the checkout, under a key of their inputs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
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
