"""Verify what skops would do with names in a file: those we trust may be looked up or made, never called at load."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tabserve.engines.trusted import FUNCTIONS, TYPES
from tabserve.inference.bounds import holds_more

MOST_INFLATED = 10
SLACK_BYTES = 8 << 20
"""The bytes that any file may hold, however small it is."""
MOST_DEPTH = 300
"""skops would exceed Python's recursion limit at about three times this depth."""
FEWEST_BYTES = 8
"""The fewest bytes that each of many values takes in schema.json; skops writes 18."""
SLACK = 1000

_LOOKED_UP = frozenset({"FunctionNode"})
# These make an object with `__new__`, or with a constructor that skops chooses, and give it its state.
_MADE = frozenset({"ObjectNode", "DTypeNode", "PartialNode", "SparseMatrixNode", "TreeNode"})
# A dict is made by calling its type without arguments.
_BUNCH = ("DictNode", "sklearn.utils._bunch.Bunch")


def verify(content: bytes) -> None:
    """Refuse a file in which skops would call a name that we trust with what the file holds.

    skops trusts a name wherever it is in the file. Names that skops trusts by itself are not looked at. A file that
    inflates to far more than it is, or is nested as no model is, is refused before it is parsed. Raises ValueError.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        _verify_sizes(file.infolist(), len(content))
        text = file.read("schema.json")
    if holds_more(text, b"[{,", len(text) // FEWEST_BYTES + SLACK):
        raise ValueError("schema.json holds more values than those of a model")
    for node in _nodes(json.loads(text)):
        loader, name = node["__loader__"], f"{node.get('__module__')}.{node.get('__class__')}"
        allowed = _LOOKED_UP if name in FUNCTIONS else _MADE
        if name in TYPES and loader not in allowed and (loader, name) != _BUNCH:
            raise ValueError(f"{name} would be called by loading the file ({loader})")


def _verify_sizes(members: Sequence[zipfile.ZipInfo], size: int) -> None:
    """Refuse a file that holds too much for its size, or whose compression takes much memory."""
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
        raise ValueError("expected a plain or deflated zip")
    if sum(member.file_size for member in members) > MOST_INFLATED * size + SLACK_BYTES:
        raise ValueError(f"inflates to more than {MOST_INFLATED} times its size")
    text = sum(member.file_size for member in members if member.filename == "schema.json")
    if text > max(size, SLACK_BYTES):
        raise ValueError("schema.json is longer than that of a model")


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """All nodes in a file's tree. Raises ValueError if it is too deep to be loaded."""
    level, depth = [tree], 0
    while level:
        depth += 1
        if depth > MOST_DEPTH:
            raise ValueError(f"nested more than {MOST_DEPTH} deep")
        yield from (part for part in level if isinstance(part, dict) and "__loader__" in part)
        level = [inner for part in level for inner in _inside(part)]


def _inside(part: Any) -> Iterable[Any]:
    if isinstance(part, dict):
        return part.values()
    return part if isinstance(part, list) else ()
