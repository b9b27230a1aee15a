"""How far a share may be from what it is by chance, however often one looks.

Every band here is for independent rows. What holds with probability 1 - alpha holds for all numbers of rows at once.

Sources: S. R. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence
sequences", Annals of Statistics 49(2), 2021, Theorem 1 (polynomial stitching, eta 2, s 1.4). P. Massart, "The tight
constant in the Dvoretzky-Kiefer-Wolfowitz inequality", Annals of Probability 18(3), 1990. H. Robbins, "Statistical
methods related to the law of the iterated logarithm", Annals of Mathematical Statistics 41(5), 1970 (mixtures).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tabserve.arrays import Array

FEWEST = 100
"""Rows from which on the band is narrow, and a window is judged."""
_SCALE = (2**0.25 + 2**-0.25) / math.sqrt(2)
_POWER = 1.4
_LOG_ZETA = math.log(3.105_473)
"""The logarithm of Riemann's zeta function at 1.4, rounded up."""
_HALVINGS = 60
_log_gamma = np.vectorize(math.lgamma, otypes=[np.float64])


def spent(alpha: float, number: npt.ArrayLike) -> Array:
    """The part of alpha for the window with this number, from 1: over all windows the parts add up to alpha."""
    return np.asarray(6 * alpha / (np.pi * np.asarray(number, np.float64)) ** 2)


def band(rows: npt.ArrayLike, alpha: npt.ArrayLike, log_events: float = 0.0, ratio: npt.ArrayLike = 1.0) -> Array:
    """How far the shares of some events may be from their probabilities, for all numbers of rows at once.

    alpha: the probability that any of the events is ever further off, to either side. log_events: the logarithm of
    how many events there are; a union bound covers them.
    ratio: the largest weight divided by the mean one. A row of weight w moves a weighted share by w/(rows * mean) at
    most, so that the band of equal weights times this ratio holds for any weights. This is conservative: it counts the
    rows as rows / ratio².
    """
    count = np.maximum(np.asarray(rows, np.float64), 1)
    least = np.maximum(count, FEWEST)
    log = _POWER * np.log(np.log2(2 * least / FEWEST)) + _LOG_ZETA + log_events + np.log(2 / np.asarray(alpha))
    return np.asarray(np.asarray(ratio) * _SCALE / 2 * np.sqrt(least * log) / count)


def reference_band(rows: int, alpha: float) -> float:
    """How far the distribution function of so many rows may be from the true one anywhere (Massart, 1990)."""
    return math.sqrt(math.log(2 / alpha) / (2 * rows))


def reference_event_band(rows: int, alpha: float, log_events: float = 0.0) -> float:
    """How far the shares of some events among so many rows may be from their probabilities (Hoeffding's inequality)."""
    return math.sqrt((math.log(2 / alpha) + log_events) / (2 * rows))


def interval(hits: npt.ArrayLike, rows: npt.ArrayLike, alpha: float) -> tuple[Array, Array]:
    """Where a probability lies, given hits among rows: bounds for all numbers of rows at once.

    Robbins' mixture: the probabilities p at which the likelihood under a Beta(1/2, 1/2) mixture is less than 1/alpha
    times that under p. The quotient is a martingale that starts at 1 if p is true, so Ville's inequality gives the
    coverage. It also holds for the mean of probabilities that change with time.
    """
    n = np.asarray(rows, np.float64)
    k = np.asarray(hits, np.float64)
    mixed = _log_beta(k + 0.5, n - k + 0.5) - math.log(math.pi)
    share = np.divide(k, n, out=np.full(np.broadcast(k, n).shape, 0.5), where=n > 0)

    def outside(p: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            likelihood = np.where(k > 0, k * np.log(p), 0) + np.where(n > k, (n - k) * np.log1p(-p), 0)
        return np.asarray(mixed - likelihood >= math.log(1 / alpha))

    low = _boundary(outside, np.zeros_like(share), share)
    high = _boundary(outside, np.ones_like(share), share)
    return np.where(k > 0, low, 0.0), np.where(n > k, high, 1.0)


def _boundary(outside: object, far: Array, near: Array) -> Array:
    """The last point outside between a far point and one that is inside."""
    for _ in range(_HALVINGS):
        middle = (far + near) / 2
        is_outside = outside(middle)  # type: ignore[operator]
        far, near = np.where(is_outside, middle, far), np.where(is_outside, near, middle)
    return far


def weighted_interval(hits: float, weight: float, rows: int, largest: float, alpha: float) -> tuple[float, float]:
    """Where a probability lies, given the weight of the hits among the weight of so many rows.

    largest: the largest weight that a row may have. Equal weights give `interval`, others a `band`.
    """
    if not rows:
        return 0.0, 1.0
    ratio = largest * rows / weight
    if ratio <= 1 + 1e-9:
        low, high = interval(round(hits / largest), rows, alpha)
        return float(low), float(high)
    width = float(band(rows, alpha, ratio=ratio))
    return max(0.0, hits / weight - width), min(1.0, hits / weight + width)


def _log_beta(first: Array, second: Array) -> Array:
    return np.asarray(_log_gamma(first) + _log_gamma(second) - _log_gamma(first + second))
