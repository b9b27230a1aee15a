"""How long a rollout takes at one's own traffic, by simulation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tabserve.arrays import Array
from tabserve.rollout.checks import TICK_SECONDS, Budget, Rules
from tabserve.rollout.simulate import CASES, GOOD, RULES, TICKS_A_MINUTE, Found, Slot, Traffic, run

LEAST_MINUTES = 2.0
"""A step takes at least this long."""
UNCOUNTED_MINUTES = 3 * TICK_SECONDS / 60
"""How long requests are not counted after a change of the weight."""
HOURS = 4
"""A step that has not been left after these is held."""


class Step(NamedTuple):
    """One weight of the canary, simulated.

    percent: of the requests. left: minutes until a good canary's budgets are proven, infinite if not within HOURS.
    found: by name of a case, when it was taken back.
    """

    percent: float
    left: Array
    found: dict[str, Found]


def plan(
    rpm: float, steps: Sequence[float], runs: int, seed: int, rules: Rules = RULES, good: Slot = GOOD
) -> list[Step]:
    """Simulate each step for a canary as good as stable, and for worse ones, this many times."""
    made = []
    for at, percent in enumerate(steps):
        left = leave(rpm, percent / 100, runs, seed + at, rules, good)
        traffic = Traffic(rpm, percent / 100, mirrored=1.0)
        found = {
            name: run(case, traffic, runs, seed + at, rules, good, only=check) for name, (check, case) in CASES.items()
        }
        made.append(Step(percent, left, found))
    return made


def leave(rpm: float, share: float, runs: int, seed: int, rules: Rules, good: Slot) -> Array:
    """Minutes [runs] until the budgets of errors and of slow requests are proven at one step."""
    random = np.random.default_rng(seed)
    slow = good.slower_than(rules.slow_over)
    budgets = [Budget(rules.errors, rules.false_advance), Budget(rules.slow, rules.false_advance)]
    minutes = np.full(runs, np.inf)
    for tick in range(HOURS * 60 * TICKS_A_MINUTE):
        requests = random.poisson(rpm * share / TICKS_A_MINUTE, runs)
        for budget, rate in zip(budgets, (good.errors, slow), strict=True):
            budget.add(random.binomial(requests, rate), requests)
        new = np.all([budget.proven() for budget in budgets], axis=0) & np.isinf(minutes)
        minutes[new] = (tick + 1) / TICKS_A_MINUTE
        if np.isfinite(minutes).all():
            break
    return np.asarray(np.maximum(minutes, LEAST_MINUTES) + UNCOUNTED_MINUTES)


def whole(steps: Sequence[Step]) -> Array:
    """Minutes [runs] from the first step until the last is proven, infinite if that takes more than HOURS."""
    total = np.sum([step.left for step in steps], axis=0)
    return np.where(total <= HOURS * 60, total, np.inf)


def median(minutes: Array) -> str:
    """The median in words, or how many there are if fewer than half."""
    middle = float(np.sort(minutes)[(len(minutes) - 1) // 2])
    if np.isfinite(middle):
        return f"{middle:.0f} min" if middle >= 10 else f"{middle:.1f} min"
    return f"{np.isfinite(minutes).mean():.0%}"
