"""Whole rollouts by simulation, which differ in errors only: by the gate, and by Flagger's tutorial."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tabserve.arrays import Array
from tabserve.rollout.checks import TICK_SECONDS, Budget, Judge
from tabserve.rollout.evidence import Counts
from tabserve.rollout.gate import LEAST_SECONDS, SETTLING_TICKS
from tabserve.rollout.simulate import RULES

HOURS = 4
TICKS_A_MINUTE = 60 // TICK_SECONDS
STEPS = np.array([0.05, 0.2, 0.5])
STABLE_ERRORS = 0.005


class Ended(NamedTuple):
    """How rollouts ended [runs]: promoted or taken back, after how many minutes, with how many failed answers."""

    promoted: Array
    back: Array
    minutes: Array
    failed: Array

    def told(self) -> str:
        """The shares, and the medians of those that ended."""
        ended = self.promoted | self.back
        middle = [float(np.median(each[ended])) if ended.any() else np.inf for each in (self.minutes, self.failed)]
        held = 1 - ended.mean()
        return (
            f"promoted {self.promoted.mean():.1%}, taken back {self.back.mean():.1%}, held after {HOURS} h {held:.1%};"
            f" median {middle[0]:.1f} min, {middle[1]:.0f} answers of the canary failed"
        )


def flagger(rpm: float, errors: float, runs: int, seed: int) -> Ended:
    """10, 20, … 50 %, a minute each, then promoted; a minute with under 99 % of good answers is bad, 5 are too many.

    A minute without a request fails, too. The weight is raised only after a minute that was good.
    """
    random = np.random.default_rng(seed)
    weight, bad_minutes, failed, minutes = np.full(runs, 10), np.zeros(runs), np.zeros(runs), np.zeros(runs)
    promoted, back = np.zeros(runs, bool), np.zeros(runs, bool)
    while not (promoted | back).all():
        goes_on = ~(promoted | back)
        requests = random.poisson(rpm * weight / 100) * goes_on
        bad = random.binomial(requests, errors)
        good = (requests > 0) & (requests - bad >= 0.99 * requests)
        failed, minutes = failed + bad, minutes + goes_on
        bad_minutes = bad_minutes + (goes_on & ~good)
        back |= bad_minutes >= 5
        promoted |= goes_on & good & (weight >= 50)
        weight = weight + 10 * (goes_on & good & (weight < 50))
    return Ended(promoted, back, minutes, failed)


def gate(rpm: float, errors: float, runs: int, seed: int) -> Ended:
    """5 → 20 → 50 %, by the evidence and the budget of errors; promoted once the last step's budget is proven."""
    random = np.random.default_rng(seed)
    judge, budget = Judge(RULES), Budget(RULES.errors, RULES.false_advance)
    step, at_step, failed = np.zeros(runs, int), np.zeros(runs, int), np.zeros(runs)
    promoted, back, minutes = np.zeros(runs, bool), np.zeros(runs, bool), np.full(runs, np.inf)
    for tick in range(HOURS * 60 * TICKS_A_MINUTE):
        at_step = at_step + 1
        requests = rpm / TICKS_A_MINUTE * np.stack([STEPS[step], 1 - STEPS[step]])
        canary, stable = random.poisson(requests)
        bad, others = random.binomial(canary, errors), random.binomial(stable, STABLE_ERRORS)
        failed = failed + bad * np.isinf(minutes)
        counted = (at_step > SETTLING_TICKS) & np.isinf(minutes)
        judge.add({"errors": Counts(*((part * counted)[:, np.newaxis] for part in (bad, canary, others, stable)))})
        budget.add(bad * counted, canary * counted)
        back |= judge.back() & np.isinf(minutes)
        left = counted & ~back & budget.proven() & (at_step * TICK_SECONDS >= LEAST_SECONDS)
        promoted |= left & (step == len(STEPS) - 1)
        minutes = np.where((back | promoted) & np.isinf(minutes), (tick + 1) / TICKS_A_MINUTE, minutes)
        turned = left & ~promoted
        step, at_step = step + turned, at_step * ~turned
        budget.logs = budget.logs * ~turned[:, np.newaxis]
        if np.isfinite(minutes).all():
            break
    return Ended(promoted, back, minutes, failed)
