"""What does not fit in a schema, and its structs, which find all of it at once."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TypeAlias

import msgspec


class MisfitError(ValueError):
    """Keys do not fit each other; `path` leads from the struct that noticed to the key at fault.

    others: what else does not fit in the same struct.
    """

    others: tuple[MisfitError, ...] = ()

    def __init__(self, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.path = path


Misfits: TypeAlias = Iterator[MisfitError]
MOST_NAME = 200
"""The longest name that is compared with known ones."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the most similar known name, ` (did you mean …?)`, or an empty string.

    The hint is empty if the name is far longer than any known one, because comparing it would take long.
    """
    if len(name) > MOST_NAME:
        return ""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean `{match[0]}`?)" if match else ""


@lru_cache(maxsize=64)
def misnamed(absent: frozenset[str], others: frozenset[str]) -> tuple[str, str] | None:
    """An absent field, and another key with nearly the same name; None if there are none."""
    for name in sorted(absent):
        if close := difflib.get_close_matches(name, sorted(others), n=1):
            return name, close[0]
    return None


def unknown_name(kind: str, got: str, known: Sequence[str], *path: str | int) -> MisfitError:
    """The error for a name that is none of the known ones, with the most similar of them."""
    there = ", ".join(known) or "none"
    return MisfitError(f"expected a {kind}, got `{got}`{nearest(got, known)}; there is {there}", *path)


def repeated(names: Sequence[str], *path: str | int) -> Misfits:
    """An error for each name that is there more than once, at its last place."""
    for name, count in Counter(names).items():
        if count > 1:
            last = len(names) - 1 - list(reversed(names)).index(name)
            yield MisfitError(f"`{name}` is defined {count} times; names must be unique", *path, last)


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A mapping without unknown keys. Raises MisfitError if its keys do not fit each other."""

    def __post_init__(self) -> None:
        found = list(self._misfits())
        if found:
            first, *others = found
            first.others = tuple(others)
            raise first

    def _misfits(self) -> Misfits:
        """What does not fit each other in this struct."""
        yield from ()
