"""Evidence that a canary differs from stable: products of likelihood ratios of counts, which grow only if it does.

Evidence is the value of a bet at even odds or worse. As long as the canary is as good as stable, its expectation is at
most 1 whenever one looks. So the chance that it ever reaches x is at most 1 / x (Ville's inequality). That is what is
called an e-process. Each tick's counts are compared conditionally on how many events both slots had together, so that
a rate which changes for both at once cancels out. Lindon and Malek, "Anytime-valid inference for multinomial count
data", arXiv:2011.03567, has the likelihood ratios; here they are one-sided, and a mean over several odds.

All functions give logarithms, for arrays of any shape; the last axis of what they give is that of the odds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, inf, lgamma, log, pi
from typing import NamedTuple

import numpy as np

from tabserve.arrays import Array

RARE = (1.2, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""How many times the odds that are still good, for events such as errors."""
FREQUENT = (1.08, 1.15, 1.3, 1.6, 2.2, 4.0)
"""The same for events that are usual, such as a decision, of which there are enough to see smaller changes."""
BELOW = (0.02, 0.1, 0.25, 0.45, 0.7)
"""What parts of a budget a rate might be, if it is below it."""
ABOVE = (1.2, 1.5, 2.0, 3.0, 5.0, 10.0)
"""How many times a budget a rate might be, if it is above it."""
_FARTHEST = 7.0
"""The largest logarithm of a ratio that is told."""
_SPREAD = 600.0
"""The largest logarithm of a weight, well within a float's range."""


class Counts(NamedTuple):
    """Events among requests at both slots, as arrays that broadcast with each other."""

    canary_events: Array
    canary: Array
    stable_events: Array
    stable: Array


def rare(counts: Counts, good: float, ratios: Sequence[float]) -> Array:
    """Evidence for odds of `ratio * good`, canary to stable, against odds of at most `good`, if ratios are over 1.

    With ratios under 1, against odds of at least `good`. Each of the m events is taken to be the canary's with
    probability `odds * n_c / (odds * n_c + n_s)`, a binomial distribution. The true one, a hypergeometric, is less
    spread, so the expectation of the ratio is at most 1, and clearly less where events are frequent.
    """
    events, canary, others, stable = (np.asarray(part, np.float64)[..., np.newaxis] for part in counts)
    factors = np.asarray(ratios, np.float64)
    requests = np.maximum(good * canary + stable, np.finfo(np.float64).tiny)
    growth = np.log1p((factors - 1) * good * canary / requests)
    logs: Array = events * np.log(factors) - (events + others) * growth
    return logs


def frequent(counts: Counts, good: float, ratios: Sequence[float]) -> Array:
    """The same from the exact distribution of the canary's events, Fisher's noncentral hypergeometric one.

    The odds are those of an event in a request. Ratios are ordered, the nearest to 1 first. Counts are whole numbers.
    """
    shape = np.broadcast_shapes(*(np.shape(part) for part in counts))
    events, canary, stable_events, stable = (
        np.broadcast_to(np.asarray(part, np.float64), shape).ravel() for part in counts
    )
    drawn = _Drawn(canary, stable, events + stable_events)
    logs = _log_ratios(drawn, events, good, np.asarray(ratios, np.float64))
    return logs.reshape(*shape, len(ratios))


def rate(events: Array, trials: Array, bound: float, ratios: Sequence[float]) -> Array:
    """Evidence that a rate is `ratio * bound` against rates of at most `bound`, or at least for ratios under 1."""
    happened = np.asarray(events, np.float64)[..., np.newaxis]
    tried = np.asarray(trials, np.float64)[..., np.newaxis]
    factors = np.asarray([ratio for ratio in ratios if ratio * bound < 1], np.float64)
    logs: Array = happened * np.log(factors) + (tried - happened) * np.log((1 - factors * bound) / (1 - bound))
    return logs


def log_mean(logs: Array, axis: int | tuple[int, ...] = -1) -> Array:
    """The logarithm of the mean of what these are the logarithms of; a mean of e-processes is one again."""
    top = logs.max(axis=axis, keepdims=True)
    mean: Array = np.log(np.exp(logs - top).mean(axis=axis)) + np.squeeze(top, axis)
    return mean


def rate_interval(events: float, trials: float, alpha: float) -> tuple[float, float]:
    """Bounds of a rate that hold however often one looks, with probability 1 - alpha.

    They are the rates against which the evidence of a bet on any other, by Jeffreys' prior, is below 1 / alpha.
    """
    if not trials:
        return 0.0, 1.0
    middle, others = events / trials, trials - events
    bet = lgamma(events + 0.5) + lgamma(others + 0.5) - lgamma(trials + 1) - log(pi)

    def against(share: float) -> bool:
        return bet - _times_log(events, share) - _times_log(others, 1 - share) >= -log(alpha)

    return _edge(against, middle, 0.0), _edge(against, middle, 1.0)


def ratio_interval(steps: Sequence[tuple[float, float, float]], alpha: float) -> tuple[float, float]:
    """Bounds of how many times stable's rate the canary's is, which hold however often one looks, with 1 - alpha.

    steps: the canary's share of the requests, its events, and stable's. An event is the canary's with probability
    `ratio * share / (ratio * share + 1 - share)`, since the route chooses by chance. The bet is on a grid of ratios.
    """
    logs = np.linspace(-_FARTHEST, _FARTHEST, 701)
    weights = 1 / (1 + logs * logs)
    bet = float(log_mean(_likelihood(steps, logs) + np.log(weights / weights.mean())))

    def against(place: float) -> bool:
        return bet - float(_likelihood(steps, np.array(place))) >= -log(alpha)

    middle = float(logs[np.argmax(_likelihood(steps, logs))])
    low, high = _edge(against, middle, -_FARTHEST), _edge(against, middle, _FARTHEST)
    return (0.0 if low <= -_FARTHEST else exp(low)), (inf if high >= _FARTHEST else exp(high))


def _likelihood(steps: Sequence[tuple[float, float, float]], logs: Array) -> Array:
    """The logarithm of how likely the events are at ratios with these logarithms."""
    total = np.zeros(np.shape(logs))
    for share, ours, theirs in steps:
        odds = logs + log(share / (1 - share))
        total = total - ours * np.logaddexp(0, -odds) - theirs * np.logaddexp(0, odds)
    return total


def _times_log(count: float, share: float) -> float:
    return 0.0 if not count else -inf if share <= 0 else count * log(share)


def _edge(against: Callable[[float], bool], inside: float, end: float) -> float:
    """Where an interval ends on the way from a place inside it to an end of all places."""
    if not against(end):
        return end
    for _ in range(60):
        middle = (inside + end) / 2
        inside, end = (inside, middle) if against(middle) else (middle, end)
    return inside


class _Drawn(NamedTuple):
    """Balls in an urn, as vectors: the canary's requests, stable's, and how many of both are events."""

    canary: Array
    stable: Array
    events: Array

    def mode(self, odds: float) -> Array:
        """The likeliest number of the canary's events (Liao and Rosen, 2001)."""
        a = odds - 1
        b = self.events - self.stable - (self.canary + self.events + 2) * odds
        c = (self.canary + 1) * (self.events + 1) * odds
        return np.asarray(np.floor(-2 * c / (b - np.sqrt(b * b - 4 * a * c))))

    def deviation(self, mode: Array) -> Array:
        """About the standard deviation of the canary's events around their mode, rather more than less."""
        parts = (mode, self.canary - mode, self.events - mode, self.stable - self.events + mode)
        precision: Array = np.sum([1 / (np.maximum(part, 0) + 1) for part in parts], axis=0)
        return np.asarray(np.sqrt(1 / precision))


def _log_ratios(drawn: _Drawn, events: Array, good: float, ratios: Array) -> Array:
    """Log likelihood ratios [cases, ratios]; in several steps if the ratios are too far apart for one."""
    middle = np.sqrt(ratios[-1])
    centre = drawn.mode(good * middle)
    ends = [drawn.mode(good), drawn.mode(good * ratios[-1])]
    reach = [np.abs(end - centre) + 8 * drawn.deviation(end) + 20 for end in ends]
    half = int(np.max(reach, initial=1))
    if half * abs(np.log(middle)) < _SPREAD:
        return _weighed(drawn, events, good, ratios, centre, half)
    if len(ratios) == 1:
        return _log_ratios(drawn, events, good, np.array([middle, ratios[0]]))[:, 1:]
    cut = len(ratios) // 2
    near = _log_ratios(drawn, events, good, ratios[:cut])
    far = _log_ratios(drawn, events, good * ratios[cut - 1], ratios[cut:] / ratios[cut - 1])
    return np.concatenate([near, near[:, -1:] + far], axis=1)


def _weighed(drawn: _Drawn, events: Array, good: float, ratios: Array, centre: Array, half: int) -> Array:
    """Log likelihood ratios from sums over at most `half` numbers of events on each side of the centre.

    The weight of j events is a product of steps from j to j + 1. It is taken at odds in the middle of all ratios, so
    that one exponential for each j serves all of them.
    """
    canary, stable, together = (part[:, np.newaxis] for part in drawn)
    middle = np.sqrt(ratios[-1])
    offsets = np.arange(-half, half + 1, dtype=np.float64)
    number = centre[:, np.newaxis] + offsets
    up = np.maximum(canary - number, 0) * np.maximum(together - number, 0)
    down = np.maximum(number + 1, 1) * np.maximum(stable - together + number + 1, 1)
    with np.errstate(divide="ignore"):
        steps = np.log(up / down) + np.log(good * middle)
    weights = np.zeros_like(steps)
    np.cumsum(steps[:, :-1], axis=1, out=weights[:, 1:])
    weights[number < np.maximum(together - stable, 0)] = -np.inf
    weights = np.exp(weights - weights.max(axis=1, keepdims=True))
    sums = np.log(weights @ (np.concatenate([[1.0], ratios]) / middle) ** offsets[:, np.newaxis])
    logs: Array = (events - centre)[:, np.newaxis] * np.log(ratios) - (sums[:, 1:] - sums[:, :1])
    return logs
