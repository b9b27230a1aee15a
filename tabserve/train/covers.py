"""Recognise the table that XGBoost's trees were trained on: they store how many rows each leaf held."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from tabserve.arrays import Array

EXACT = 1e-3
"""The largest gap that is only rounding: up to here, the rows are the training data."""


def gap(booster: Any, matrix: Any) -> float | None:
    """The largest gap between the shares of rows in a tree's leaves and those in training, 0 to 1.

    A leaf's cover is the sum of its rows' second derivatives, which depend on the answers of the trees before. None
    if they also depend on the target, or if there are no trees. matrix: a DMatrix of the rows.
    """
    learner = json.loads(booster.save_raw("json"))["learner"]  # with NaN, which msgspec does not read
    curvature = _CURVATURES.get(learner["objective"]["name"])
    model = learner["gradient_booster"].get("model", {})
    if curvature is None or not model.get("trees"):
        return None
    trees, groups = model["trees"], np.array(model["tree_info"], np.intp)
    margin = booster.predict(matrix, output_margin=True, strict_shape=True).astype(np.float64)
    leaves = booster.predict(matrix, pred_leaf=True, strict_shape=True).astype(np.intp).reshape(len(margin), -1)
    if leaves.shape[1] != len(trees) or margin.shape[1] != groups.max() + 1:
        return None
    return max(_gaps(trees, groups, leaves, margin, curvature, model["iteration_indptr"]))


def _gaps(
    trees: list[Any], groups: Array, leaves: Array, margin: Array, curvature: Callable[[Array], Array], starts: Any
) -> list[float]:
    """The gap of every tree; the weights of the rows in each round follow from the rounds before."""
    values = [np.array(tree["split_conditions"]) for tree in trees]
    given = np.stack([of[leaf] for of, leaf in zip(values, leaves.T, strict=True)], axis=1)
    for group in np.unique(groups):
        margin[:, group] -= given[:, groups == group].sum(axis=1)
    gaps = []
    for start, end in pairwise(starts):
        weights = curvature(margin)
        for at in range(start, end):
            gaps.append(_tree_gap(trees[at], leaves[:, at], weights[:, groups[at]]))
            margin[:, groups[at]] += given[:, at]
    return gaps


def _tree_gap(tree: Any, leaves: Array, weights: Array) -> float:
    covers = np.where(np.array(tree["left_children"]) == -1, tree["sum_hessian"], 0.0)
    held = np.bincount(leaves, weights, len(covers))
    return float(abs(held / held.sum() - covers / covers.sum()).sum() / 2)


def _sigmoid(margin: Array) -> Array:
    chance = 1 / (1 + np.exp(-margin))
    return np.asarray(chance * (1 - chance))


def _softmax(margin: Array) -> Array:
    powers = np.exp(margin - margin.max(axis=1, keepdims=True))
    chance = powers / powers.sum(axis=1, keepdims=True)
    return np.asarray(chance * (1 - chance))


_CURVATURES: dict[str, Callable[[Array], Array]] = {
    "reg:squarederror": np.ones_like,
    "count:poisson": np.exp,
    **dict.fromkeys(("binary:logistic", "binary:logitraw", "reg:logistic"), _sigmoid),
    **dict.fromkeys(("multi:softmax", "multi:softprob"), _softmax),
}
