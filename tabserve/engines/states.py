"""Verify search trees, sparse matrices and splines from a file, which native code follows unchecked."""

from __future__ import annotations

from typing import Any

import numpy as np

from tabserve.arrays import Array
from tabserve.engines import skops_types

# How many arrays of bounds each kind of search tree reads: a box's minimum and maximum, or a ball's centre.
_BOUNDS = {"sklearn.neighbors._kd_tree.KDTree": 2, "sklearn.neighbors._ball_tree.BallTree": 1}
_METRICS = "sklearn.metrics._dist_metrics."
_SPLINES = ("scipy.interpolate._bsplines.BSpline", "scipy.interpolate._bsplines._BSpline")


def verify(model: Any) -> None:
    """Refuse a model in which an index points outside its array. Raises ValueError."""
    for _, part in skops_types.parts(model):
        kind = f"{type(part).__module__}.{type(part).__qualname__}"
        if kind in _BOUNDS:
            _verify_search(_BOUNDS[kind], *part.__getstate__())
        elif kind.startswith(_METRICS):
            _verify_metric(part)
        elif kind in _SPLINES:
            # The constructor compares knots, coefficients and degree; reading a state does not.
            type(part)(part.t, part.c, part.k)
        elif kind.startswith("scipy.sparse."):
            _verify_sparse(part)


def _verify_search(
    arrays: int,
    data: Array,
    order: Array,
    nodes: Array,
    bounds: Array,
    leaf_size: int,
    _levels: int,
    count: int,
    *rest: Any,
) -> None:
    """The nodes must divide the rows among them, every inner one between its two children, 2i + 1 and 2i + 2."""
    *_, metric, weights = rest
    rows, width = data.shape
    if not np.array_equal(np.sort(order), np.arange(rows)) or leaf_size < 1:
        raise ValueError("a search tree's rows point outside its data")
    if count < 1 or len(nodes) != count or bounds.shape != (arrays, count, width):
        raise ValueError("a search tree's nodes do not match its bounds")
    start, end = nodes["idx_start"], nodes["idx_end"]
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    left, right = 2 * inner + 1, 2 * inner + 2
    if (right >= count).any() or (start < 0).any() or (end > rows).any() or (start > end).any():
        raise ValueError("a search tree's nodes point outside the tree")
    divided = (start[left] == start[inner]) & (end[left] == start[right]) & (end[right] == end[inner])
    if (start[0], end[0]) != (0, rows) or not divided.all():
        raise ValueError("a search tree's nodes do not divide its rows")
    if weights is not None and np.shape(weights) != (rows,):
        raise ValueError("a search tree's weights do not match its rows")
    if not type(metric).__module__.startswith(_METRICS.rstrip(".")):
        raise ValueError("a search tree has no metric")
    _verify_metric(metric)
    metric._validate_data(data)


def _verify_metric(metric: Any) -> None:
    matrix = metric.__getstate__()[2]
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"a metric's matrix is {matrix.shape[0]} by {matrix.shape[1]}, not square")


def _verify_sparse(matrix: Any) -> None:
    if matrix.format not in ("csr", "csc"):
        raise ValueError(f"a sparse matrix of format {matrix.format}, expected csr or csc")
    matrix.check_format(full_check=True)
