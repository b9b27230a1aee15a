"""The course of a rollout as a state machine, which each tick's counts drive; it touches no cluster.

wait → watch → shadow → step 0, 1, … → held, and from everywhere to back or undecided. What the route should be follows
from the state alone (`Gate.wanted`), so a gate that was killed goes on from a state that was kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
import numpy as np

from tabserve.rollout import status as telling
from tabserve.rollout.checks import BLOCK_TICKS, TICK_SECONDS
from tabserve.rollout.compare import NO_PAIRS, Copies
from tabserve.rollout.dispersion import dispersion
from tabserve.rollout.ledger import Ledger
from tabserve.rollout.plan import LEAST_MINUTES
from tabserve.rollout.scrape import Tally
from tabserve.rollout.settings import Settings, seconds
from tabserve.rollout.state import Change, Counted, Phase, Pod, Point, State, Step

SETTLING_TICKS = 3
"""Ticks after a change of the route that are not counted."""
LEAST_SECONDS = 60 * LEAST_MINUTES
"""A step takes at least this long."""
MOST_RESTARTS = 2
"""So many restarts at the canary, with none at stable, take it back."""
SILENT_SECONDS = 300
"""Time without a request after which that is told."""


class Route(NamedTuple):
    """The share of the canary, and of the requests whose copies go to the gate, in percent."""

    weight: int
    mirror: int


class Seen(NamedTuple):
    """What one tick saw.

    seconds: since the last one. lacking: why the canary can't be given traffic. route: what the gateway follows, None
    if it has not taken over the newest one. canary, stable: what they counted since the last tick. pods: with their
    containers' restarts so far. ready: pods that answer clients, of canary and stable. by_pod: errors and requests of
    each of stable's. copies: what the shadow has counted in all. order: `back`, `hold`, or nothing.
    """

    seconds: float = TICK_SECONDS
    lacking: str = ""
    route: Route | None = None
    canary: Tally = Tally()
    stable: Tally = Tally()
    pods: Sequence[Pod] = ()
    ready: tuple[int, int] = (1, 1)
    by_pod: Mapping[str, tuple[float, float]] = {}
    copies: Copies | None = None
    order: str = ""


class Notice(NamedTuple):
    """Something to tell the cluster."""

    reason: str
    told: str
    warning: bool = False


def begin(settings: Settings, now: datetime | None = None) -> State:
    """The state of a rollout that has done nothing."""
    began = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    return State(
        settings.name, settings.namespace, settings.stable, settings.canary, settings.course.rules(),
        settings.course.steps, began, job=settings.job, mirror=settings.course.shadow.percent,
    )  # fmt: skip


def resumed(settings: Settings, kept: State | None) -> State:
    """The state to go on from: the kept one, if it is of this release and was made with these settings.

    A release that was taken back stays so, whatever the settings are.
    """
    if kept is None or kept.canary.release != settings.canary.release:
        return begin(settings)
    return kept if kept.phase == "back" or kept.job == settings.job else begin(settings)


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


class Gate:
    """A rollout under way. state: what to keep. notices: what came up in the last tick."""

    def __init__(self, settings: Settings, state: State, dispersion: float | None = None) -> None:
        self._settings, self._course = settings, settings.course
        self.state = state
        self.notices: list[Notice] = []
        self._dispersion = dispersion
        self._copies = copies_of(state)
        self._watched: list[Mapping[str, tuple[float, float]]] = []
        self._first: dict[str, int] = {}
        self._ticks, self._empty, self._silent = 0, 0, 0.0
        self.ledger = ledger_of(state)
        if state.phase == "watch":
            state.phase = "wait"

    def wanted(self) -> Route | None:
        """What the route should be; None if there should be none."""
        if not self.state.weight and self.state.phase != "shadow":
            return None
        return Route(self.state.weight, self.state.mirror)

    def ended(self) -> int | None:
        """The exit status, or None as long as the gate has something to do."""
        if self.state.weight:
            return None
        return {"back": 1, "undecided": 2}.get(self.state.phase)

    def again(self) -> None:
        """Begin at the first step again, with the evidence so far, because the route went with its pod."""
        if self.state.phase in ("step", "held", "undecided"):
            self._turn(0, "the gate has a new pod")

    def tick(self, seen: Seen) -> None:
        """Take in what a tick saw."""
        self.notices = []
        self.state.seconds += seen.seconds
        self._count_restarts(seen.pods)
        if self.ended() is not None:
            return
        if seen.order == "back":
            self._back("Back: by `tabserve rollout stop`.", "tabserve rollout stop")
            return
        self.state.order = seen.order
        phases = {"wait": self._wait, "watch": self._watch, "shadow": self._shadow, "step": self._step}
        phase = phases.get(self.state.phase)
        if phase is None:
            self._hold(seen)
        elif self.state.seconds >= seconds(self._course.max_duration):
            self._expire()
        else:
            phase(seen)

    def _at_phase(self) -> float:
        """How long the present phase, or step, has lasted."""
        return self.state.seconds - (self.state.changes[-1].at if self.state.changes else 0)

    def _wait(self, seen: Seen) -> None:
        if seen.lacking:
            self.state.told = f"Waiting for the canary: {seen.lacking}."
        else:
            self._enter("watch", 0, "the canary is Ready")
            self._watched = []

    def _watch(self, seen: Seen) -> None:
        self._watched.append(seen.by_pod)
        left = seconds(self._course.calibrate) - self._at_phase()
        if left > 0:
            requests = sum(asked for tick in self._watched for _, asked in tick.values())
            rpm = requests / (len(self._watched) * TICK_SECONDS / 60)
            self.state.told = (
                f"Watching stable alone for {_minutes(left)} more; it answers {rpm:.0f} requests a minute."
            )
            return
        found = max(filter(None, (self._dispersion, differing(self._watched))), default=None)
        self.ledger = ledger_of(self.state, found)
        if self.state.mirror:
            self._enter("shadow", 0, "stable was watched")
        else:
            self._turn(0, "stable was watched")

    def _shadow(self, seen: Seen) -> None:
        if not self._settled(seen):
            return
        self._judge(seen._replace(canary=Tally(), stable=Tally()))
        if self._bad(seen, alone=True):
            return
        pairs, wanted = self.ledger.pairs, self._course.shadow.pairs
        proven = not pairs.decided or "disagreement" not in self.ledger.lacking()
        if pairs.pairs < wanted:
            self.state.told = f"Not yet: {pairs.pairs} of {wanted} pairs of answers have been compared."
        elif not proven:
            self.state.told = f"Not yet: {pairs.different} of {pairs.decided} pairs differ; too few prove the budget."
        elif any(self.ledger.judge.of(check) >= self._doubt for check in ("errors", "refused")):
            self.state.told = "Not yet: the canary may fail or refuse more copies than stable."
        elif not self._kept_back(seen):
            self._turn(0, f"{pairs.pairs} pairs of answers agree enough")

    @property
    def _doubt(self) -> float:
        """The evidence, as a logarithm, that keeps a canary where it is."""
        return -math.log(self.state.rules.false_advance)

    def _step(self, seen: Seen) -> None:
        if not self._settled(seen):
            return
        self._judge(seen)
        if self._bad(seen):
            return
        if self.ledger.verdict() != "on" or self._kept_back(seen):
            return
        if self._at_phase() < LEAST_SECONDS:
            self.state.told = f"Not yet: a step takes {_minutes(LEAST_SECONDS)}, and its budgets are proven."
            return
        if self.state.step + 1 < len(self.state.steps):
            self._turn(self.state.step + 1, "the budgets are proven")
        else:
            told = f"On: held at {self.state.weight} %. Set traffic.stable to {self.state.canary.slot} to promote it."
            self._enter("held", self.state.weight, "the budgets are proven", told)

    def _hold(self, seen: Seen) -> None:
        """Stay at the weight, and go on judging."""
        if self._settled(seen):
            told = self.state.told
            self._judge(seen)
            if not self._bad(seen):
                self.state.told = told

    def _expire(self) -> None:
        """Go to the last weight that was proven."""
        proven = self.state.steps[self.state.step - 1] if self.state.step > 0 else 0
        weight = proven if self._course.when_undecided == "hold" else 0
        reason = self.state.told.partition(": ")[2] or self.state.told
        if weight:
            self._count_from(weight)
        over = f"{self._course.max_duration} are over"
        self._enter("undecided", weight, over, f"Undecided after {self._course.max_duration}: {reason}")

    def _kept_back(self, seen: Seen) -> bool:
        """Whether something other than the counts keeps the weight where it is, which is told."""
        if seen.order == "hold":
            self.state.told = "Not yet: `tabserve rollout stop --hold` keeps it here."
        elif seen.lacking:
            self.state.told = f"Not yet: {seen.lacking}."
        return bool(seen.order == "hold" or seen.lacking)

    def _settled(self, seen: Seen) -> bool:
        """Whether the gateway has followed the route for long enough."""
        if seen.route != self.wanted():
            self._ticks = 0
            self.state.told = f"Waiting until the gateway gives the canary {self.state.weight} %."
            return False
        self._ticks += 1
        return self._ticks > SETTLING_TICKS

    def _judge(self, seen: Seen) -> None:
        """Add a tick's counts to the evidence, and say what it proves."""
        pairs = NO_PAIRS
        if seen.copies is not None:
            pairs, self._copies = seen.copies.since(self._copies), seen.copies
            self.state.copies = msgspec.to_builtins(seen.copies)
        cold = self._cold(seen.ready)
        self.ledger.add(seen.canary, seen.stable, pairs, cold=cold)
        self._keep()
        self.state.told = telling.sentence(self.ledger) + self._outlook()
        self.state.not_judged = telling.not_judged(self.ledger) + _unjudged(cold, self.state)
        self._hear(seen.canary.requests + seen.stable.requests + pairs.asked, seen.seconds)

    def _keep(self) -> None:
        state, ledger = self.state, self.ledger
        state.evidence = ledger.keep()
        if state.counted and state.phase != "shadow":
            state.counted[-1] = Step(state.weight, *map(Counted.of, ledger.since))
        checks = {check: round(float(ledger.judge.of(check)), 3) for check in ledger.judge.logs}
        budgets = {name: round(float(budget.log()), 3) for name, budget in ledger.budgets.items()}
        together = round(float(ledger.judge.together()), 3)
        state.add(Point(round(state.seconds), state.weight, together, checks, budgets))

    def _cold(self, ready: tuple[int, int]) -> bool:
        """Whether a pod of the canary gets fewer than half the requests that one of stable's does."""
        weight, (canary, stable) = self.state.weight, ready
        return canary > 0 and weight * stable < 0.5 * (100 - weight) * canary

    def _hear(self, requests: float, passed: float) -> None:
        """Tell once that there is no traffic."""
        before = self._silent
        self._silent = 0.0 if requests else before + passed
        if before < SILENT_SECONDS <= self._silent:
            self.notices.append(
                Notice("NoTraffic", f"No request in {_minutes(self._silent)}; nothing is judged.", True)
            )

    def _bad(self, seen: Seen, alone: bool = False) -> bool:
        """Take the canary back if it is to be. alone: it has no requests of clients yet."""
        restarts = {slot.slot: 0 for slot in (self.state.stable, self.state.canary)}
        for pod in self.state.pods:
            restarts[pod.slot] += pod.restarts
        ours, theirs = restarts[self.state.canary.slot], restarts[self.state.stable.slot]
        canary, stable = seen.ready
        self._empty = self._empty + 1 if stable and not canary and not alone else 0
        if self.ledger.verdict() == "back":
            self._back(telling.sentence(self.ledger))
        elif ours >= MOST_RESTARTS and not theirs:
            self._back(f"Back: the canary's containers were restarted {ours} times, and stable's never.")
        elif self._empty > 1:
            self._back("Back: the canary has no pod that is Ready.")
        return self.state.phase == "back"

    def _count_restarts(self, pods: Sequence[Pod]) -> None:
        """Keep how often each pod was restarted since it was first seen; a pod that is new has begun with none."""
        kept = {pod.name: pod.restarts for pod in self.state.pods}
        fresh = self.state.phase in ("wait", "watch") or not self._first
        for pod in pods:
            if pod.name not in self._first:
                self._first[pod.name] = pod.restarts - kept.get(pod.name, 0) if fresh else 0
        self.state.pods = [Pod(pod.slot, pod.name, pod.restarts - self._first[pod.name]) for pod in pods]

    def _outlook(self) -> str:
        """What is lacking, in minutes or in words, if the budgets of live requests are not proven."""
        lacking = [name for name in self.ledger.lacking() if name != "disagreement"]
        if not lacking or self.ledger.verdict() == "back" or not self.ledger.since[0].requests:
            return ""
        stable = self.ledger.since[1]
        if stable.requests and stable.errors / stable.requests > self.state.rules.errors:
            return f" Stable itself has {stable.errors / stable.requests:.1%} errors."
        proof = min(float(self.ledger.budgets[name].log()) for name in lacking)
        return f" At this rate in {_minutes(self._at_phase() * (self._doubt / proof - 1))}." if proof > 0.1 else ""

    def _turn(self, step: int, why: str) -> None:
        """Give the canary the weight of a step."""
        self.state.step = step
        self._count_from(self.state.steps[step])
        self._enter("step", self.state.steps[step], why)

    def _count_from(self, weight: int) -> None:
        """Count from here on at another weight; at 100 there is no split to judge."""
        self.ledger.turn(weight if weight < 100 else None)
        self.state.evidence = self.ledger.keep()
        self.state.counted.append(Step(weight, *map(Counted.of, self.ledger.since)))

    def _back(self, told: str, who: str = "gate") -> None:
        self._enter("back", 0, told.removeprefix("Back: "), told, who)

    def _enter(self, phase: Phase, weight: int, why: str, told: str = "", who: str = "gate") -> None:
        """Enter a phase, or a step, and tell the cluster."""
        state = self.state
        state.phase, state.weight, self._ticks = phase, weight, 0
        state.changes.append(Change(round(state.seconds, 1), phase, weight, why, who))
        state.told = told or f"{phase.capitalize()}: {weight} % to the canary, because {why}."
        reason = {"wait": "Waiting", "watch": "Watching", "shadow": "Shadowing", "step": "Step"}.get(phase)
        warning = phase in ("back", "undecided")
        self.notices.append(Notice(f"Rollout{reason or phase.capitalize()}", state.told, warning))


def differing(ticks: Sequence[Mapping[str, tuple[float, float]]]) -> float | None:
    """What stable's pods differ by in their errors, from each pod's errors and requests by tick; None for one pod."""
    pods = sorted({name for tick in ticks for name in tick})
    if len(pods) < 2:
        return None
    counts = np.array([[tick.get(name, (0.0, 0.0)) for tick in ticks] for name in pods])
    return float(dispersion(counts[..., 0], counts[..., 1]))


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


def _minutes(passed: float) -> str:
    return f"{passed:.0f} s" if passed < 120 else f"{passed / 60:.0f} min"
