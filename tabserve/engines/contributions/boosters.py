"""Exact contributions of XGBoost's shallow trees, from tables; held against XGBoost's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from tabserve.arrays import Array
from tabserve.engines.contributions.shallow import ShallowTrees, Tree

_TOLERANCE = 1e-5
_FEW = 64


class BoosterContributions:
    """SHAP values of a Booster of shallow trees, [rows, groups, features + 1]."""

    def __init__(self, booster: Any, rounds: tuple[int, int], reference: Array) -> None:
        """Raises ValueError if the trees are too deep or of an unknown kind, or if XGBoost disagrees."""
        import xgboost

        self._trees = ShallowTrees(list(decompose(booster, rounds[1])), booster.num_features())
        rows = np.asarray(reference[:_FEW], np.float32)
        rows = np.concatenate([rows, np.full((1, rows.shape[1]), np.nan, np.float32)])  # and one without values
        options = {"pred_contribs": True, "strict_shape": True, "validate_features": False, "iteration_range": rounds}
        own = np.asarray(booster.predict(xgboost.DMatrix(rows, nthread=1), **options), np.float64)
        self._bias = own[0, :, -1]
        found, scale = self(rows), max(1.0, float(abs(own).max()))
        if found.shape != own.shape or not np.allclose(found, own, rtol=0.0, atol=_TOLERANCE * scale):
            raise ValueError("XGBoost's own contributions differ")

    def __call__(self, features: Array) -> Array:
        """In FP32, as XGBoost gives them."""
        values = self._trees(features.astype(np.float32).astype(np.float64))
        values[:, :, -1] = self._bias
        return values.astype(np.float32)


def contributor(booster: Any, rounds: tuple[int, int], reference: Array) -> BoosterContributions | None:
    """A function that computes contributions faster than XGBoost, None if there is none."""
    try:
        return BoosterContributions(booster, rounds, reference)
    except (ValueError, LookupError):  # LookupError: a damaged tree, or a form that another version of XGBoost writes
        return None


def decompose(booster: Any, rounds: int) -> Iterator[Tree]:
    """The trees of the first `rounds` rounds, of all if 0. Raises ValueError for no trees, or for trees of vectors."""
    learner = json.loads(booster.save_raw("json"))["learner"]  # with NaN, which msgspec does not read
    boosted = learner["gradient_booster"]
    model = boosted.get("gbtree", boosted)["model"]
    if not model.get("trees"):
        raise ValueError("no trees")
    weights = model.get("weight_drop") or boosted.get("weight_drop")  # their place in DART depends on the version
    for at in range(model["iteration_indptr"][rounds or -1]):
        yield _tree(model["trees"][at], model["tree_info"][at], weights[at] if weights else 1.0)


def _tree(stored: dict[str, Any], group: int, weight: float) -> Tree:
    """XGBoost goes left below the threshold, compared in single precision."""
    conditions = np.array(stored["split_conditions"], np.float32).astype(np.float64)
    if int(stored["tree_param"]["size_leaf_vector"]) > 1:
        raise ValueError("leaves that hold vectors")
    spans = zip(*(stored[f"categories_{name}"] for name in ("nodes", "segments", "sizes")), strict=True)
    return Tree(
        group,
        np.array(stored["left_children"]),
        np.array(stored["right_children"]),
        np.array(stored["split_indices"]),
        np.nextafter(conditions, -np.inf),
        np.array(stored["default_left"]).astype(bool),
        conditions * weight,
        np.array(stored["sum_hessian"], np.float64),
        {node: tuple(stored["categories"][start : start + size]) for node, start, size in spans},
    )
