"""What a canary is judged by: kinds of events, each with its share of the chance of a false rollback."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tabserve.arrays import Array
from tabserve.inference.metrics import SECONDS
from tabserve.rollout.evidence import ABOVE, BELOW, FREQUENT, RARE, Counts, frequent, log_mean, rare, rate

TICK_SECONDS = 10
BLOCK_TICKS = 6
"""Ticks after which usual events are compared; within a block, the share of the traffic must not change."""


class Check(NamedTuple):
    """A kind of events, and what a canary that is as good as stable may do.

    share: of the chance of a false rollback. title: its events in words. form: which evidence is for it. both:
    whether too few of them count against the canary, too.
    """

    name: str
    share: float
    title: str
    form: str = "rare"
    both: bool = False


CHECKS = {
    check.name: check
    for check in (
        Check("errors", 0.40, "failed requests"),
        Check("refused", 0.10, "refused requests"),
        Check("latency", 0.15, "requests that took"),
        Check("decisions", 0.10, "first decisions", "frequent", both=True),
        Check("scores", 0.05, "first scores", "frequent", both=True),
        Check("split", 0.05, "requests at the canary", both=True),
        Check("disagreement", 0.15, "different answers", "rate"),
    )
}
BOUNDS = tuple(bound for bound in SECONDS if bound >= 0.005)
"""Requests are compared by how many take longer than each of these seconds."""


def above(bins: Array) -> Array:
    """How many there are above each bound [..., bounds], from the bins between and outside them [..., bounds + 1]."""
    return np.cumsum(bins[..., :0:-1], axis=-1)[..., ::-1]


class Rules(NamedTuple):
    """What one asks of a canary.

    false_rollback: chance that one as good as stable is taken back. false_advance: chance that a step is left although
    a budget is broken. errors, slow, disagreement: budgets, as shares of requests; slow_over in seconds. decisions,
    scores: how many times other the odds of a decision, or of a score, may be than stable's; None if any may be.
    """

    false_rollback: float = 0.01
    false_advance: float = 0.05
    errors: float = 0.02
    slow: float = 0.02
    slow_over: float = 0.1
    disagreement: float = 0.02
    decisions: float | None = 1.25
    scores: float | None = 1.25

    def needed(self, check: str) -> float:
        """The evidence at which a check by itself takes the canary back."""
        return 1 / (self.false_rollback * CHECKS[check].share)

    def log_ratios(self, check: str, counts: Counts) -> Array:
        """The evidence in one tick's counts [..., events], as logarithms [..., events, odds]."""
        form, both = CHECKS[check].form, CHECKS[check].both
        if form == "rate":
            return rate(counts.canary_events, counts.canary, self.disagreement, ABOVE)
        good = {"decisions": self.decisions, "scores": self.scores}.get(check) or 1.0
        test, ratios = (frequent, FREQUENT) if form == "frequent" else (rare, RARE)
        more = test(counts, good, ratios)
        if not both:
            return more
        return np.concatenate([more, test(counts, 1 / good, [1 / ratio for ratio in ratios])], axis=-1)


class Judge:
    """The evidence so far, for one rollout or for many alike that lie along the first axes of all counts.

    block: ticks after which usual events are compared. dispersion: by check, what its evidence is discounted by [...].
    """

    def __init__(self, rules: Rules, block: int = 1, dispersion: Mapping[str, Array] | None = None) -> None:
        self._rules = rules
        self._dispersion = dispersion or {}
        self._block = block
        self._held: dict[str, tuple[int, Counts]] = {}
        self.logs: dict[str, Array] = {}
        """Logarithms [..., events, odds] by check."""

    def add(self, tick: Mapping[str, Counts]) -> None:
        """Add one tick's counts [..., events] by check; those of usual events are held until their block is whole."""
        for check, counts in tick.items():
            whole = self._whole(check, counts) if CHECKS[check].form == "frequent" else counts
            if whole is not None:
                factor = np.asarray(self._dispersion.get(check, 1.0))[..., np.newaxis, np.newaxis]
                logs = self._rules.log_ratios(check, whole) / factor
                self.logs[check] = self.logs[check] + logs if check in self.logs else logs

    def drop(self) -> None:
        """Forget the counts whose block is not whole."""
        self._held.clear()

    def _whole(self, check: str, counts: Counts) -> Counts | None:
        ticks, held = self._held.pop(check, (0, None))
        total = counts if held is None else Counts(*(old + new for old, new in zip(held, counts, strict=True)))
        if ticks + 1 == self._block:
            return total
        self._held[check] = ticks + 1, total
        return None

    def of(self, check: str) -> Array:
        """The evidence of a check as a logarithm [...]: the mean over its events and their odds."""
        return log_mean(self.logs[check], (-2, -1)) if check in self.logs else np.zeros(())

    def strongest(self, run: tuple[int, ...] = ()) -> str:
        """The check that contributes most to the evidence of all. run: one of many rollouts."""
        return max(self.logs, key=lambda check: math.log(CHECKS[check].share) + float(self.of(check)[run]))

    def together(self) -> Array:
        """The evidence of all checks as a logarithm [...], each by its share; a canary goes back at 1 / false_rollback.

        A check that has seen nothing bets nothing, and keeps its share.
        """
        parts = np.broadcast_arrays(*(np.log(check.share) + self.of(check.name) for check in CHECKS.values()))
        return np.asarray(log_mean(np.stack(parts, axis=-1)) + np.log(len(parts)))

    def back(self) -> Array:
        """Whether the canary is to be taken back."""
        return np.asarray(self.together() >= -np.log(self._rules.false_rollback))


class Budget:
    """The proof that a rate of the canary is below a bound."""

    def __init__(self, bound: float, false_advance: float) -> None:
        self._bound, self._needed = bound, -np.log(false_advance)
        self.logs: Array = np.zeros(1)

    def add(self, events: Array, requests: Array) -> None:
        """Add one tick's counts [...]."""
        self.logs = self.logs + rate(events, requests, self._bound, BELOW)

    def log(self) -> Array:
        """The proof as a logarithm [...]."""
        return log_mean(self.logs)

    def proven(self) -> Array:
        """Whether the rate is proven to be below the bound."""
        return np.asarray(self.log() >= self._needed)
