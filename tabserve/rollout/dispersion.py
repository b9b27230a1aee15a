"""How much more the pods of one release differ from each other than by chance."""

from __future__ import annotations

import numpy as np

from tabserve.arrays import Array

WINDOWS = (1, 2, 5, 10, 30, 60)
"""Ticks that are taken together, because a burst at a pod may last for many."""
FEWEST_WINDOWS = 5
"""Less than so many windows of a length say nothing about it."""


def dispersion(events: Array, requests: Array) -> Array:
    """The factor [...] by which counts of events [..., pods, ticks] vary more than those of equal pods, at least 1.

    It is Pearson's statistic by its degrees of freedom, given how many events all pods had together in a window; the
    largest of those for windows of several lengths. Evidence is discounted by it: dividing a logarithm by a factor over
    1 keeps an e-process one (Jensen's inequality). That it suffices where pods do differ is measured, no theorem.
    """
    found = [np.ones(np.broadcast_shapes(events.shape, requests.shape)[:-2])]
    for window in WINDOWS:
        count = events.shape[-1] // window
        if count >= FEWEST_WINDOWS:
            found.append(_pearson(_windows(events, window, count), _windows(requests, window, count)))
    return np.asarray(np.max(found, axis=0))


def _windows(counts: Array, window: int, count: int) -> Array:
    kept = counts[..., : window * count]
    return np.asarray(kept.reshape(*kept.shape[:-1], count, window).sum(axis=-1), np.float64)


def _pearson(events: Array, requests: Array) -> Array:
    together, asked = events.sum(axis=-2, keepdims=True), requests.sum(axis=-2, keepdims=True)
    rate = together / np.maximum(asked, 1)
    spread = requests * rate * (1 - rate)
    squares = np.divide((events - requests * rate) ** 2, spread, out=np.zeros(spread.shape), where=spread > 0)
    freedom = np.maximum((spread > 0).sum(axis=-2) - 1, 0).sum(axis=-1)
    return np.asarray(squares.sum(axis=(-2, -1)) / np.maximum(freedom, 1))
