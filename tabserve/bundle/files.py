"""A file that is read once, so that what was hashed is what is parsed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple


class File(NamedTuple):
    """A file's name and what it held when it was read."""

    name: str
    content: bytes

    @classmethod
    def of(cls, path: Path) -> File:
        """The file at a path. Raises OSError."""
        return cls(path.name, path.read_bytes())

    @property
    def sha256(self) -> str:
        """The digest of the content."""
        return hashlib.sha256(self.content).hexdigest()
