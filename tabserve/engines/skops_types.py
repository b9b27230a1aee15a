"""scikit-learn's trees from a file: their node indices, which scikit-learn itself follows unchecked."""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from tabserve.arrays import Array

_HISTOGRAM = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
_TREE = "sklearn.tree._tree.Tree"


def verify(model: Any) -> None:
    """Refuse trees whose nodes point outside the tree, backwards, or to a feature that is not there.

    Raises ValueError. Source: scikit-learn #34558, and skops' reasons not to trust these types.
    """
    for owner, part in parts(model):
        width = int(owner.n_features_in_) if hasattr(owner, "n_features_in_") else 0
        kind = f"{type(part).__module__}.{type(part).__qualname__}"
        if kind == _HISTOGRAM:
            nodes = part.nodes
            inner = nodes["is_leaf"] == 0
            _verify(nodes["left"], nodes["right"], nodes["feature_idx"], inner, width)
            _verify_categories(nodes[inner & (nodes["is_categorical"] != 0)], part)
        elif kind == _TREE:
            _verify(part.children_left, part.children_right, part.feature, part.children_left != -1, width)


def _verify(left: Array, right: Array, feature: Array, inner: Array, width: int) -> None:
    """Children come after their parent, so every walk ends."""
    own, count = np.arange(len(left))[inner], len(left)
    children = np.stack([left[inner], right[inner]]).astype(np.int64)
    features = feature[inner].astype(np.int64)
    if count == 0 or (children <= own).any() or (children >= count).any():
        raise ValueError("a tree's nodes point outside the tree")
    if (features < 0).any() or (features >= width).any():
        raise ValueError(f"a tree splits on a feature beyond the {width} there are")


def _verify_categories(nodes: Array, predictor: Any) -> None:
    if (nodes["bitset_idx"].astype(np.int64) >= len(predictor.raw_left_cat_bitsets)).any():
        raise ValueError("a tree's categories point outside the tree")


def parts(model: Any) -> Iterator[tuple[Any, Any]]:
    """Every object inside a model, with the estimator whose `predict` reaches it."""
    waiting, seen = [(model, model)], set()
    while waiting:
        owner, part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield owner, part
        waiting += [(_owner(owner, part), inner) for inner in _inside(part)]


def _owner(owner: Any, part: Any) -> Any:
    """A forest checks the width of its input once, and its trees no more."""
    is_estimator = hasattr(part, "get_params")
    if not is_estimator or (hasattr(owner, "estimators_") and type(owner).__module__.startswith("sklearn.ensemble._")):
        return owner
    return part


def _inside(part: Any) -> Iterator[Any]:
    if isinstance(part, dict):
        yield from part.values()
    elif isinstance(part, list | tuple):
        yield from part
    elif isinstance(part, np.ndarray):
        yield from part.ravel() if part.dtype == object else ()
    elif not isinstance(part, type | ModuleType | FunctionType):
        yield from getattr(part, "__dict__", {}).values()
