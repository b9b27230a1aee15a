"""Recognise the table that a scikit-learn model was trained on, from what the model keeps of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tabserve.arrays import Array, dense
from tabserve.engines.contributions.shallow import Tree
from tabserve.engines.contributions.trees import decompose

_SHARE = 1e-3
# How far a sum over all rows may be from a whole number: solvers stop just before the optimum.
_WHOLE = 0.02


def repeated(model: Any, table: Any) -> bool:
    """Whether a model shows that it was trained on exactly the rows of a table; False if it keeps nothing of them."""
    found: list[bool] = []
    for step in [part for _, part in getattr(model, "steps", ())][:-1]:
        found += _scaled(step, dense(table))
        table = step.transform(table) if hasattr(step, "transform") else table
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    found += [*_summed(last, table), *_counted(last, dense(table))]
    return bool(found) and all(found)


def _scaled(step: Any, matrix: Array) -> Iterator[bool]:
    """Whether the table has the mean and variance that a scaler keeps for each column."""
    if type(step).__name__ == "StandardScaler" and step.mean_ is not None and step.var_ is not None:
        yield bool(np.allclose(step.mean_, np.nanmean(matrix, axis=0)))
        yield bool(np.allclose(step.var_, np.nanvar(matrix, axis=0)))


def _summed(model: Any, table: Any) -> Iterator[bool]:
    """Whether the probabilities add up to whole numbers, as a logistic regression's do over its training rows.

    There they add up to the number of rows in each class. The same holds, up to the penalty, for the rows with the
    same whole number in a column.
    """
    if type(model).__name__ != "LogisticRegression" or not model.fit_intercept or model.class_weight is not None:
        return
    if model.solver == "liblinear" or len(model.classes_) != 2 or model.l1_ratio not in (None, 0, 0.0):
        return
    matrix, chance = dense(table), np.asarray(model.predict_proba(table))[:, 1]
    yield _is_whole(chance.sum())
    whole = (matrix == np.floor(matrix)).all(axis=0)
    for column, weight in zip(matrix.T[whole], model.coef_[0][whole], strict=True):
        yield _is_whole(column @ chance + weight / model.C)


def _is_whole(number: float) -> bool:
    return abs(number - round(number)) <= _WHOLE


def _counted(model: Any, matrix: Array) -> Iterator[bool]:
    """Whether the table fills the leaves as a tree recorded it; a tree that drew its own rows recorded others."""
    try:
        trees = list(decompose(model))
    except ValueError:
        return
    for tree in trees:
        held, leaves = np.bincount(_leaves(tree, matrix), minlength=len(tree.left)), tree.left < 0
        shares = held[leaves] / len(matrix) - tree.cover[leaves] / tree.cover[leaves].sum()
        yield bool(abs(shares).max() <= _SHARE)


def _leaves(tree: Tree, matrix: Array) -> Array:
    """The leaf that each row falls into."""
    rows, at = np.arange(len(matrix)), np.zeros(len(matrix), np.intp)
    while (inner := tree.left[at] >= 0).any():
        values = matrix[rows, tree.feature[at]]
        left = np.where(np.isnan(values), tree.missing_left[at], values <= tree.threshold[at])
        at = np.where(inner, np.where(left, tree.left[at], tree.right[at]), at)
    return at
