"""Pools of requests and answers as the generator reads them: entries of a little-endian length and as many bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

_LENGTH = struct.Struct("<I")


def write(path: Path, entries: Iterable[bytes]) -> None:
    """Write the entries in order."""
    with path.open("wb") as file:
        for entry in entries:
            file.write(_LENGTH.pack(len(entry)) + entry)


def read(path: Path) -> list[bytes]:
    """All entries. Raises ValueError if the file is cut off."""
    content, at = path.read_bytes(), 0
    entries: list[bytes] = []
    while at < len(content):
        (length,) = _LENGTH.unpack_from(content, at) if at + _LENGTH.size <= len(content) else (len(content),)
        end = at + _LENGTH.size + length
        if end > len(content):
            raise ValueError(f"{path}: cut off after {len(entries)} entries")
        entries.append(content[at + _LENGTH.size : end])
        at = end
    return entries


def first(path: Path) -> bytes:
    """The first entry."""
    with path.open("rb") as file:
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        return file.read(length)
