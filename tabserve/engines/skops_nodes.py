"""What skops would do with a name in a file: what we trust may be looked up or made, never called as it is loaded."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tabserve.engines.trusted import FUNCTIONS, TYPES

_LOOKED_UP = frozenset({"FunctionNode"})
# They make an object by `__new__`, or by a constructor of skops' own choice, and give it its state.
_MADE = frozenset({"ObjectNode", "DTypeNode", "PartialNode", "SparseMatrixNode", "TreeNode"})
# A dict is made by calling its type with nothing.
_BUNCH = ("DictNode", "sklearn.utils._bunch.Bunch")


def verify(path: Path) -> None:
    """Refuse a file in which a name of ours stands where skops would call it with what the file holds.

    skops trusts a name wherever it stands. What it calls on its own trust is not looked at. Raises ValueError.
    """
    with zipfile.ZipFile(path) as file:
        tree = json.loads(file.read("schema.json"))
    for node in _nodes(tree):
        loader, name = node["__loader__"], f"{node.get('__module__')}.{node.get('__class__')}"
        allowed = _LOOKED_UP if name in FUNCTIONS else _MADE
        if name in TYPES and loader not in allowed and (loader, name) != _BUNCH:
            raise ValueError(f"{name} would be called as it is loaded ({loader})")


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every node of a file's tree."""
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting += part.values()
            if "__loader__" in part:
                yield part
        elif isinstance(part, list):
            waiting += part
