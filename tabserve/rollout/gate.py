"""The course of a rollout as a state machine, which each tick's counts drive; it touches no cluster.

wait → watch → shadow → step 0, 1, … → held, and from everywhere to back or undecided. What the route should be follows
from the state alone (`Gate.wanted`), so a gate that was killed goes on from a state that was kept.
"""

from __future__ import annotations

from datetime import UTC, datetime

from tabserve.rollout.judging import Judging, minutes
from tabserve.rollout.ledger import Ledger
from tabserve.rollout.plan import LEAST_MINUTES
from tabserve.rollout.restarts import Restarts
from tabserve.rollout.scrape import Tally
from tabserve.rollout.seen import Notice, Route, Seen
from tabserve.rollout.settings import Settings, seconds
from tabserve.rollout.state import Change, Phase, State
from tabserve.rollout.watching import Watching

SETTLING_TICKS = 3
"""Ticks after a change of the route that are not counted."""
LEAST_SECONDS = 60 * LEAST_MINUTES
"""A step takes at least this long."""


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


class Gate:
    """A rollout under way. state: what to keep. notices: what came up in the last tick."""

    def __init__(self, settings: Settings, state: State, dispersion: float | None = None) -> None:
        self._settings, self._course = settings, settings.course
        self.state = state
        self.notices: list[Notice] = []
        self._dispersion = dispersion
        self._watching = Watching()
        self._ticks, self._empty = 0, 0
        self._restarts, self._judging = Restarts(state), Judging(state)
        if state.phase == "watch":
            state.phase = "wait"

    @property
    def ledger(self) -> Ledger:
        """The evidence so far."""
        return self._judging.ledger

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
        self._restarts.count(seen.pods)
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

    def _wait(self, seen: Seen) -> None:
        if seen.lacking:
            self.state.told = f"Waiting for the canary: {seen.lacking}."
        else:
            self._enter("watch", 0, "the canary is Ready")
            self._watching = Watching()

    def _watch(self, seen: Seen) -> None:
        self._watching.add(seen.by_pod)
        left = seconds(self._course.calibrate) - self.state.at_phase
        if left > 0:
            self.state.told = f"Watching stable alone for {minutes(left)} more; it answers {self._watching.rate}."
            return
        found = max(filter(None, (self._dispersion, self._watching.differing())), default=None)
        self._judging = Judging(self.state, found)
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
        elif self._judging.in_doubt:
            self.state.told = "Not yet: the canary may fail or refuse more copies than stable."
        elif not self._kept_back(seen):
            self._turn(0, f"{pairs.pairs} pairs of answers agree enough")

    def _step(self, seen: Seen) -> None:
        if not self._settled(seen):
            return
        self._judge(seen)
        if self._bad(seen):
            return
        if self.ledger.verdict() != "on" or self._kept_back(seen):
            return
        if self.state.at_phase < LEAST_SECONDS:
            self.state.told = f"Not yet: a step takes {minutes(LEAST_SECONDS)}, and its budgets are proven."
            return
        if not seen.canary.requests:
            self.state.told = "Not yet: the budgets are proven, and no request comes to the canary any more."
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
            self._judging.count_from(weight)
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
        self.notices += self._judging.add(seen)

    def _bad(self, seen: Seen, alone: bool = False) -> bool:
        """Take the canary back if it is to be. alone: it has no requests of clients yet."""
        canary, stable = seen.ready
        self._empty = self._empty + 1 if stable and not canary and not alone else 0
        told = self._judging.against or self._restarts.against
        if not told and self._empty > 1:
            told = "Back: the canary has no pod that is Ready."
        if told:
            self._back(told)
        return bool(told)

    def _turn(self, step: int, why: str) -> None:
        """Give the canary the weight of a step."""
        self.state.step = step
        self._judging.count_from(self.state.steps[step])
        self._enter("step", self.state.steps[step], why)

    def _back(self, told: str, who: str = "gate") -> None:
        self._enter("back", 0, told.removeprefix("Back: "), told, who)

    def _enter(self, phase: Phase, weight: int, why: str, told: str = "", who: str = "gate") -> None:
        """Enter a phase, or a step, and tell the cluster."""
        state = self.state
        state.phase, state.weight, self._ticks = phase, weight, 0
        state.changes.append(Change(round(state.seconds, 1), phase, weight, why, who))
        state.told = told or f"{phase.capitalize()}: {weight} % to the canary, because {why}."
        self.notices.append(_notice(phase, state.told))


def _notice(phase: Phase, told: str) -> Notice:
    """What is told of a phase that is entered."""
    reason = {"wait": "Waiting", "watch": "Watching", "shadow": "Shadowing", "step": "Step"}.get(phase)
    return Notice(f"Rollout{reason or phase.capitalize()}", told, phase in ("back", "undecided"))
