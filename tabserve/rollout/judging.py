"""What the counts of a gated rollout prove, tick by tick, kept in its state."""

from __future__ import annotations

import math

import msgspec

from tabserve.rollout import status as telling
from tabserve.rollout.checks import BLOCK_TICKS
from tabserve.rollout.compare import NO_PAIRS, Copies
from tabserve.rollout.ledger import Ledger
from tabserve.rollout.seen import Notice, Seen
from tabserve.rollout.state import Counted, Point, State, Step

SILENT_SECONDS = 300
"""Time without a request after which that is told."""


def copies_of(state: State) -> Copies:
    """What the shadow has counted so far."""
    return Copies() if state.copies is None else msgspec.convert(state.copies, Copies)


def ledger_of(state: State, dispersion: float | None = None) -> Ledger:
    """The ledger of a rollout, with the evidence so far. dispersion: what stable's pods were found to differ by."""
    kept = state.evidence
    percent, found = (kept.percent, kept.dispersion) if kept else (None, dispersion)
    ledger = Ledger(state.rules, percent, found, block=BLOCK_TICKS, shadowed=state.mirror > 0)
    if kept:
        ledger.resume(kept, state.counted)
        ledger.pairs = copies_of(state).since(Copies())
    return ledger


class Judging:
    """The evidence of a rollout under way. dispersion: what stable's pods were found to differ by."""

    def __init__(self, state: State, dispersion: float | None = None) -> None:
        self._state = state
        self._copies = copies_of(state)
        self._silent = 0.0
        self.ledger = ledger_of(state, dispersion)

    @property
    def doubt(self) -> float:
        """The evidence, as a logarithm, that keeps a canary where it is."""
        return -math.log(self._state.rules.false_advance)

    @property
    def in_doubt(self) -> bool:
        """Whether the canary may fail or refuse more than stable."""
        return any(self.ledger.judge.of(check) >= self.doubt for check in ("errors", "refused"))

    @property
    def against(self) -> str:
        """Why the counts take the canary back, empty if they do not."""
        return telling.sentence(self.ledger) if self.ledger.verdict() == "back" else ""

    def count_from(self, weight: int) -> None:
        """Count from here on at another weight; at 100 there is no split to judge."""
        self.ledger.turn(weight if weight < 100 else None)
        self._state.evidence = self.ledger.keep()
        self._state.counted.append(Step(weight, *map(Counted.of, self.ledger.since)))

    def add(self, seen: Seen) -> list[Notice]:
        """Add a tick's counts to the evidence, and say in the state what it proves."""
        state, pairs = self._state, NO_PAIRS
        if seen.copies is not None:
            pairs, self._copies = seen.copies.since(self._copies), seen.copies
            state.copies = msgspec.to_builtins(seen.copies)
        cold = self._cold(seen.ready)
        self.ledger.add(seen.canary, seen.stable, pairs, cold=cold, steady=seen.steady)
        self._keep()
        state.told = telling.sentence(self.ledger) + self._outlook()
        state.not_judged = telling.not_judged(self.ledger) + _unjudged(cold, state)
        return self._heard(seen.canary.requests + seen.stable.requests + pairs.asked, seen.seconds)

    def _keep(self) -> None:
        state, ledger = self._state, self.ledger
        state.evidence = ledger.keep()
        if state.counted and state.phase != "shadow":
            state.counted[-1] = Step(state.weight, *map(Counted.of, ledger.since))
        checks = {check: round(float(ledger.judge.of(check)), 3) for check in ledger.judge.logs}
        budgets = {name: round(float(budget.log()), 3) for name, budget in ledger.budgets.items()}
        together = round(float(ledger.judge.together()), 3)
        state.add(Point(round(state.seconds), state.weight, together, checks, budgets))

    def _cold(self, ready: tuple[int, int]) -> bool:
        """Whether a pod of the canary gets fewer than half the requests that one of stable's does."""
        weight, (canary, stable) = self._state.weight, ready
        return canary > 0 and weight * stable < 0.5 * (100 - weight) * canary

    def _heard(self, requests: float, passed: float) -> list[Notice]:
        """What to tell, once, if there is no traffic."""
        before = self._silent
        self._silent = 0.0 if requests else before + passed
        if not before < SILENT_SECONDS <= self._silent:
            return []
        return [Notice("NoTraffic", f"No request in {minutes(self._silent)}; nothing is judged.", True)]

    def _outlook(self) -> str:
        """What is lacking, in minutes or in words, if the budgets of live requests are not proven."""
        lacking = [name for name in self.ledger.lacking() if name != "disagreement"]
        if not lacking or self.ledger.verdict() == "back" or not self.ledger.since[0].requests:
            return ""
        stable = self.ledger.since[1]
        if stable.requests and stable.errors / stable.requests > self._state.rules.errors:
            return f" Stable itself has {stable.errors / stable.requests:.1%} errors."
        proof = min(float(self.ledger.budgets[name].log()) for name in lacking)
        return f" At this rate in {minutes(self._state.at_phase * (self.doubt / proof - 1))}." if proof > 0.1 else ""


def _unjudged(cold: bool, state: State) -> list[str]:
    found = []
    if cold and state.phase != "shadow":
        found.append(
            "latency: a pod of the canary gets fewer than half of the requests of one of stable's; it is colder."
        )
    if state.weight == 100:
        found.append("all that compares with stable: it has no requests left; only budgets and restarts are judged.")
    free = [check for check in ("decisions", "scores") if getattr(state.rules, check) is None]
    return [*found, *(f"{check}: change.{check} is null." for check in free)]


def minutes(passed: float) -> str:
    """A time in seconds, for people."""
    return f"{passed:.0f} s" if passed < 120 else f"{passed / 60:.0f} min"
