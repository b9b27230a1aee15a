"""Rollouts by simulation: how often a canary as good as stable is taken back, and when a worse one is."""

from __future__ import annotations

from collections.abc import Callable
from math import erf, sqrt
from typing import NamedTuple, TypeAlias

import numpy as np

from tabserve.arrays import Array
from tabserve.inference.metrics import LOGIT
from tabserve.rollout.checks import BLOCK_TICKS, BOUNDS, TICK_SECONDS, Judge, Rules, above
from tabserve.rollout.dispersion import dispersion
from tabserve.rollout.evidence import Counts

TICKS_A_MINUTE = 60 // TICK_SECONDS
BURST_TICKS = 2 * TICKS_A_MINUTE
BURST_SIGMA = 1.2
"""Standard deviation of the logarithm of a burst's factor on the rate of errors, whose mean is 1."""
PODS = {"canary": 2, "stable": 4}


class Slot(NamedTuple):
    """What requests meet at a slot.

    errors, refused: rates. p99: of latencies in seconds, whose median is 5 ms. first: rate of the first of two
    decisions. score: mean of the scores' logits, whose standard deviation is 1.5. differing: rate of pairs that differ.
    """

    errors: float = 0.005
    refused: float = 0.01
    p99: float = 0.02
    first: float = 0.1
    score: float = -2.0
    differing: float = 0.005

    def latencies(self) -> Array:
        """The chance of each bucket, up to the first bound, between two, and over the last."""
        deviation = np.log(self.p99 / 0.005) / 2.326
        return _between([np.log(bound / 0.005) / deviation for bound in BOUNDS])

    def slower_than(self, seconds: float) -> float:
        """The chance that a request takes longer."""
        return float(self.latencies()[BOUNDS.index(seconds) + 1 :].sum())

    def scores(self) -> Array:
        """The chance of each bin of scores."""
        return _between([(np.log(bound / (1 - bound)) - self.score) / 1.5 for bound in LOGIT])


GOOD, RULES = Slot(), Rules()
CASES = {
    "2 % errors": ("errors", GOOD._replace(errors=0.02)),
    "5 % errors": ("errors", GOOD._replace(errors=0.05)),
    "p99 20 → 50 ms": ("latency", GOOD._replace(p99=0.05)),
    "a decision 10 → 15 %": ("decisions", GOOD._replace(first=0.15)),
    "scores, KS 0.13": ("scores", GOOD._replace(score=-2.0 + 0.327 * 1.5)),
    "5 % labels flipped": ("disagreement", GOOD._replace(differing=0.05)),
}
"""Canaries that are worse than stable, and the check that should find each."""


class Traffic(NamedTuple):
    """Requests, and how long they come.

    rpm: requests a minute at both slots. share: of the canary. mirrored: part of them whose copies are compared.
    bursts: of errors, `none`, `common` to both slots, or of each pod by itself (`pods`); each lasts two minutes.
    watched: minutes for which stable was watched alone before, so that what its pods differ by is known.
    """

    rpm: float
    share: float = 0.2
    minutes: int = 60
    mirrored: float = 0.0
    bursts: str = "none"
    watched: int = 0


class Found(NamedTuple):
    """When rollouts were taken back, in minutes, infinite where never, and by which check's evidence above all."""

    minutes: Array
    by: list[str]

    @property
    def share(self) -> float:
        """The part of them that was taken back."""
        return float(np.isfinite(self.minutes).mean())

    @property
    def median(self) -> float:
        """The median of the minutes, infinite if fewer than half were taken back."""
        return float(np.sort(self.minutes)[(len(self.minutes) - 1) // 2])


def run(
    canary: Slot, traffic: Traffic, runs: int, seed: int, rules: Rules = RULES, stable: Slot = GOOD, only: str = ""
) -> Found:
    """Simulate this many rollouts at one step, until all are taken back or their time is over.

    only: a check that is simulated alone; the others then bet nothing.
    """
    world = _World(canary, stable, traffic, runs, np.random.default_rng(seed))
    judge = Judge(rules, BLOCK_TICKS, {"errors": world.watch()} if traffic.watched else {})
    minutes, by = np.full(runs, np.inf), [""] * runs
    for tick in range(traffic.minutes * TICKS_A_MINUTE):
        judge.add(world.tick(tick, only))
        new = judge.back() & np.isinf(minutes)
        minutes[new] = (tick + 1) / TICKS_A_MINUTE
        for at in np.flatnonzero(new).tolist():
            by[at] = judge.strongest((at,))
        if np.isfinite(minutes).all():
            break
    return Found(minutes, by)


_Events: TypeAlias = Callable[[str, Slot, Array], Array]
"""How many events [runs, events] there are at a slot of this name, among so many requests [runs]."""


class _World:
    """Counts of requests as two slots would make them, in many rollouts at a time."""

    def __init__(self, canary: Slot, stable: Slot, traffic: Traffic, runs: int, random: np.random.Generator) -> None:
        self._canary, self._stable, self._traffic = canary, stable, traffic
        self._runs, self._random = runs, random
        self._burst: dict[str, Array] = {}
        self._events: dict[str, _Events] = {
            "errors": self._errors,
            "refused": lambda _, slot, requests: random.binomial(requests, slot.refused)[:, np.newaxis],
            "latency": self._slower,
            "decisions": self._decided,
            "scores": self._scored,
        }

    def tick(self, number: int, only: str = "") -> dict[str, Counts]:
        """The counts [runs, events] of one tick by check, or of only one."""
        if number % BURST_TICKS == 0:
            self._burst = self._bursts()
        rate, random = self._traffic.rpm / TICKS_A_MINUTE, self._random
        canary = random.poisson(rate * self._traffic.share, self._runs)
        stable = random.poisson(rate * (1 - self._traffic.share), self._runs)
        pairs = random.poisson(rate * self._traffic.mirrored, self._runs)
        share, rest = np.full((1, 1), self._traffic.share), np.full((1, 1), 1 - self._traffic.share)
        differing = random.binomial(pairs, self._canary.differing)
        nothing = np.zeros((1, 1))
        found = {
            "split": Counts(canary[:, np.newaxis], share, stable[:, np.newaxis], rest),
            "disagreement": Counts(differing[:, np.newaxis], pairs[:, np.newaxis], nothing, nothing),
        }
        for check, events in self._events.items():
            if only in ("", check):
                found[check] = self._pair(canary, stable, events)
        return {only: found[only]} if only else found

    def watch(self) -> Array:
        """What stable's pods differ by in their errors [runs], seen while it has all the traffic."""
        found = []
        for number in range(self._traffic.watched * TICKS_A_MINUTE):
            if number % BURST_TICKS == 0:
                self._burst = self._bursts()
            requests = self._random.poisson(self._traffic.rpm / TICKS_A_MINUTE, self._runs)
            found.append(self._of_pods("stable", self._stable, requests))
        events, asked = (np.stack(parts, axis=-1) for parts in zip(*found, strict=True))
        return dispersion(events, asked)

    def _pair(self, canary: Array, stable: Array, events: _Events) -> Counts:
        ours, theirs = events("canary", self._canary, canary), events("stable", self._stable, stable)
        return Counts(ours, canary[:, np.newaxis], theirs, stable[:, np.newaxis])

    def _errors(self, name: str, slot: Slot, requests: Array) -> Array:
        """Errors [runs, 1], which come in bursts of the whole slot, or of each of its pods."""
        return self._of_pods(name, slot, requests)[0].sum(axis=1, keepdims=True)

    def _of_pods(self, name: str, slot: Slot, requests: Array) -> tuple[Array, Array]:
        """Errors and requests [runs, pods] of a slot's pods, among which requests are spread evenly."""
        rates = np.minimum(slot.errors * self._burst[name], 1.0)
        pods = rates.shape[1]
        spread = self._random.multinomial(requests, np.full(pods, 1 / pods))
        return self._random.binomial(spread, rates), spread

    def _slower(self, _: str, slot: Slot, requests: Array) -> Array:
        return above(self._random.multinomial(requests, slot.latencies()))

    def _scored(self, _: str, slot: Slot, requests: Array) -> Array:
        return above(self._random.multinomial(requests, slot.scores()))

    def _decided(self, _: str, slot: Slot, requests: Array) -> Array:
        first = self._random.binomial(requests, slot.first)
        return np.stack([first, requests - first], axis=1)

    def _bursts(self) -> dict[str, Array]:
        if self._traffic.bursts == "none":
            return {name: np.ones((self._runs, count)) for name, count in PODS.items()}
        drawn = {name: self._random.normal(size=(self._runs, count)) for name, count in PODS.items()}
        if self._traffic.bursts == "common":
            drawn = {name: np.broadcast_to(drawn["canary"][:, :1], each.shape) for name, each in drawn.items()}
        return {name: np.exp(BURST_SIGMA * z - BURST_SIGMA**2 / 2) for name, z in drawn.items()}


def _between(deviations: list[float]) -> Array:
    """The chance of a normal variable between each two of these, and of those outside."""
    below = [0.0, *((1 + erf(each / sqrt(2))) / 2 for each in deviations), 1.0]
    return np.diff(below)
