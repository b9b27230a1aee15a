"""Where a release's files come from, as an in-toto statement of SLSA's provenance, and their checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BUILD_TYPE = "https://tabserve.dev/release/v1"


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(files: Sequence[Path]) -> str:
    """Lines that `sha256sum --check` reads."""
    return "".join(f"{digest(path)}  {path.name}\n" for path in sorted(files))


def statement(files: Sequence[Path], commit: str, lock: Path, base: str) -> dict[str, Any]:
    """The statement: files by digest, and the commit, the lock and the base image that they were made from."""
    came: list[dict[str, Any]] = [
        {"uri": "git+repository", "digest": {"gitCommit": commit}},
        {"uri": lock.name, "digest": {"sha256": digest(lock)}},
    ]
    if base:
        name, _, pinned = base.partition("@sha256:")
        came.append({"uri": f"docker://{name}", "digest": {"sha256": pinned}})
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": path.name, "digest": {"sha256": digest(path)}} for path in sorted(files)],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"commit": commit, "baseImage": base},
                "resolvedDependencies": came,
            },
            "runDetails": {"builder": {"id": f"{BUILD_TYPE}/make"}},
        },
    }
