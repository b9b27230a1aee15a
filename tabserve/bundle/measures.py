"""How good answers were, once the outcomes are known: the same numbers for a bundle's reference and for a log."""

from __future__ import annotations

import numpy as np

from tabserve.arrays import Array

DECILES = 10


def auc(scores: Array, hits: Array, weights: Array) -> float:
    """The area under the ROC curve; NaN if all or none are hits. Equal scores count half.

    scores [rows]; hits [rows], whether each is of the class that the score is for; weights [rows].
    """
    _, which = np.unique(scores, return_inverse=True)
    hit = np.bincount(which, weights * hits)
    other = np.bincount(which, weights * ~hits)
    total = hit.sum() * other.sum()
    below = np.cumsum(other) - other
    return float((hit * (below + other / 2)).sum() / total) if total else np.nan


def brier(scores: Array, hits: Array, weights: Array) -> float:
    """The mean squared difference of probability and outcome; NaN without rows. Arguments as of `auc`."""
    total = weights.sum()
    return float((weights * (scores - hits) ** 2).sum() / total) if total else np.nan


def deciles(scores: Array, hits: Array, weights: Array, edges: Array) -> Array:
    """Weight, mean score and share of hits [bins, 3], by bins of the score; NaN where there is no weight.

    edges [bins - 1]: ascending; a score that is an edge is in the bin above. Other arguments as of `auc`.
    """
    which = np.searchsorted(edges, scores, side="right")
    sums = [np.bincount(which, each, len(edges) + 1) for each in (weights, weights * scores, weights * hits)]
    with np.errstate(invalid="ignore"):
        return np.stack([sums[0], sums[1] / sums[0], sums[2] / sums[0]], axis=1)


def decile_edges(scores: Array) -> Array:
    """Where the tenths of the scores begin, without the first; fewer than nine where many scores are equal."""
    return np.unique(np.quantile(scores, np.arange(1, DECILES) / DECILES))


def confusion(rows: Array, columns: Array, shape: tuple[int, int], weights: Array | None = None) -> Array:
    """How many rows there are, or their weight, by decision and outcome [decisions, outcomes]."""
    made = np.bincount(rows.astype(np.intp) * shape[1] + columns, weights, shape[0] * shape[1])
    return made.reshape(shape)
