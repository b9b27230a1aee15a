"""Verify the node indices of scikit-learn's trees from a file, which scikit-learn itself follows unchecked."""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from tabserve.arrays import Array

_HISTOGRAM = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
_TREE = "sklearn.tree._tree.Tree"


# These check their rows once, and pass them to their trees unchecked.
_UNCHECKED = frozenset({"sklearn.ensemble._forest", "sklearn.ensemble._gb", "sklearn.ensemble._iforest"})
_BITSET = 8


def verify(model: Any) -> None:
    """Refuse trees whose nodes point outside the tree, backwards, or to a feature that does not exist.

    Raises ValueError. Source: scikit-learn #34558, and skops' reasons not to trust these types.
    """
    for width, part in parts(model):
        kind = f"{type(part).__module__}.{type(part).__qualname__}"
        if kind == _HISTOGRAM:
            nodes = part.nodes
            _verify(nodes["left"], nodes["right"], nodes["feature_idx"], nodes["is_leaf"] == 0, width)
        elif kind == _TREE:
            _verify(part.children_left, part.children_right, part.feature, part.children_left != -1, width)
        elif hasattr(part, "_predictors") and hasattr(part, "_bin_mapper"):
            for predictor in (one for stage in part._predictors for one in stage):
                _verify_categories(predictor, part._bin_mapper)


def _verify(left: Array, right: Array, feature: Array, inner: Array, width: int) -> None:
    """Children must come after their parent, so that every walk ends."""
    own, count = np.arange(len(left))[inner], len(left)
    children = np.stack([left[inner], right[inner]]).astype(np.int64)
    features = feature[inner].astype(np.int64)
    if count == 0 or (children <= own).any() or (children >= count).any():
        raise ValueError("a tree's nodes point outside the tree")
    if (features < 0).any() or (features >= width).any():
        raise ValueError(f"a tree splits on a feature beyond the {width} it has")


def _verify_categories(predictor: Any, mapper: Any) -> None:
    """Splits on categories must point to a bitset of the tree, and to one of the model for each categorical feature."""
    nodes = predictor.nodes[(predictor.nodes["is_leaf"] == 0) & (predictor.nodes["is_categorical"] != 0)]
    if not len(nodes):
        return
    bitsets, categorical = predictor.raw_left_cat_bitsets, np.atleast_1d(mapper.is_categorical_).astype(bool)
    if bitsets.shape[1:] != (_BITSET,) or (nodes["bitset_idx"].astype(np.int64) >= len(bitsets)).any():
        raise ValueError("a tree's categories point outside the tree")
    if nodes["feature_idx"].max() >= len(categorical) or not categorical[nodes["feature_idx"]].all():
        raise ValueError("a tree splits on categories of a feature that has none")


def parts(model: Any) -> Iterator[tuple[int, Any]]:
    """Every object inside a model, with the number of columns that rows which reach it are sure to have.

    An object that is reached in several ways comes once for each number.
    """
    waiting, seen = [(0, False, model)], set()
    while waiting:
        width, unchecked, part = waiting.pop()
        if hasattr(part, "get_params") and not isinstance(part, type):
            own = int(getattr(part, "n_features_in_", 0))
            width = min(width, own) if unchecked else own
        if (id(part), width) in seen:
            continue
        seen.add((id(part), width))
        yield width, part
        waiting += _members(width, part)
        waiting += [(width, False, inner) for inner in _inside(part)]


def _members(width: int, part: Any) -> Iterator[tuple[int, bool, Any]]:
    """The trees that get an ensemble's rows unchecked: all columns, or the columns drawn for each."""
    if not _UNCHECKED.isdisjoint(base.__module__ for base in type(part).__mro__) and hasattr(part, "estimators_"):
        drawn = getattr(part, "estimators_features_", None)
        for at, member in enumerate(np.ravel(np.asarray(part.estimators_, object))):
            yield (width if drawn is None else min(width, len(drawn[at])), True, member)


def _inside(part: Any) -> Iterator[Any]:
    if isinstance(part, dict):
        yield from part.values()
    elif isinstance(part, list | tuple):
        yield from part
    elif isinstance(part, np.ndarray):
        yield from part.ravel() if part.dtype == object else ()
    elif not isinstance(part, type | ModuleType | FunctionType):
        yield from getattr(part, "__dict__", {}).values()
