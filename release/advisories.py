"""Compare the lock with an advisory data base in OSV's format, such as osv.dev's export for PyPI."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from packaging.version import InvalidVersion, Version

EXPORT = "https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


class Match(NamedTuple):
    """A pin that an advisory names."""

    name: str
    version: str
    advisory: str
    summary: str


def pins(lock: str) -> list[tuple[str, str]]:
    """Names and versions in a lock."""
    return [(_normal(name), version) for name, version in _PIN.findall(lock)]


def scan(lock: str, base: Path) -> list[Match]:
    """The pins that an advisory names. base: a zip file or a folder with a JSON file for each advisory."""
    pinned: dict[str, list[str]] = {}
    for name, version in pins(lock):
        pinned.setdefault(name, []).append(version)
    found = [
        Match(name, version, advisory["id"], advisory.get("summary", ""))
        for advisory in _advisories(base)
        if "withdrawn" not in advisory
        for name, version in _hit(advisory, pinned)
    ]
    return sorted(set(found))


def _hit(advisory: dict[str, Any], pinned: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    for affected in advisory.get("affected", []):
        package = affected.get("package", {})
        name = _normal(package.get("name", ""))
        if package.get("ecosystem") == "PyPI":
            yield from ((name, version) for version in pinned.get(name, []) if _affects(affected, version))


def _affects(affected: dict[str, Any], version: str) -> bool:
    """Whether a version is listed, or in a range (OSV schema, `affected[].ranges`)."""
    if version in affected.get("versions", []):
        return True
    ranges = [each["events"] for each in affected.get("ranges", []) if each["type"] == "ECOSYSTEM"]
    return any(_within(events, Version(version)) for events in ranges)


def _within(events: list[dict[str, str]], version: Version) -> bool:
    inside = False
    for event in sorted(events, key=lambda each: _version(next(iter(each.values())))):
        at = _version(next(iter(event.values())))
        if "introduced" in event and version >= at:
            inside = True
        if ("fixed" in event and version >= at) or ("last_affected" in event and version > at):
            inside = False
    return inside


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0")


def _advisories(base: Path) -> Iterator[dict[str, Any]]:
    if base.is_dir():
        yield from (json.loads(path.read_bytes()) for path in sorted(base.rglob("*.json")))
        return
    with zipfile.ZipFile(base) as packed:
        yield from (json.loads(packed.read(name)) for name in packed.namelist() if name.endswith(".json"))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
