"""Show the arguments that a docstring explains as a list; the docstrings have them as `name: text.` in running text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import griffe


class Listed(griffe.Extension):  # type: ignore[misc]  # griffe is only in the environment of `make docs`
    """Lists the arguments of functions, and the fields of classes, in their docstrings."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Change a function's docstring."""
        _change(func, [one.name for one in func.parameters])

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Change a class's docstring."""
        _change(cls, [*cls.members, *(one.name for one in cls.parameters)])


def _change(found: griffe.Object, names: Iterable[str]) -> None:
    if found.docstring is not None:
        found.docstring.value = listed(found.docstring.value, names)


def listed(text: str, names: Iterable[str]) -> str:
    """A docstring with its arguments as items of a list, and what it raises after them."""
    known = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    if not known:
        return text
    start = rf"(?:^|(?<=\. )|(?<=\.\n))((?:(?:{known})(?:, |(?=:)))+): "
    items = re.sub(start, lambda found: f"\n\n- `{found[1].replace(', ', '`, `')}`: ", text, flags=re.MULTILINE)
    return re.sub(r"\s+(Raises \w)", r"\n\n\1", items) if items != text else text
