"""Verify what skops would do with names in a file: those we trust may be looked up or made, never called at load."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tabserve.engines.trusted import FUNCTIONS, TYPES

_LOOKED_UP = frozenset({"FunctionNode"})
# These make an object with `__new__`, or with a constructor that skops chooses, and give it its state.
_MADE = frozenset({"ObjectNode", "DTypeNode", "PartialNode", "SparseMatrixNode", "TreeNode"})
# A dict is made by calling its type without arguments.
_BUNCH = ("DictNode", "sklearn.utils._bunch.Bunch")


def verify(path: Path) -> None:
    """Refuse a file in which skops would call a name that we trust with what the file holds.

    skops trusts a name wherever it is in the file. Names that skops trusts by itself are not looked at. Raises
    ValueError.
    """
    with zipfile.ZipFile(path) as file:
        tree = json.loads(file.read("schema.json"))
    for node in _nodes(tree):
        loader, name = node["__loader__"], f"{node.get('__module__')}.{node.get('__class__')}"
        allowed = _LOOKED_UP if name in FUNCTIONS else _MADE
        if name in TYPES and loader not in allowed and (loader, name) != _BUNCH:
            raise ValueError(f"{name} would be called by loading the file ({loader})")


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """All nodes in a file's tree."""
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting += part.values()
            if "__loader__" in part:
                yield part
        elif isinstance(part, list):
            waiting += part
