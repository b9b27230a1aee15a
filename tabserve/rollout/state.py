"""The state of a gated rollout, as the ConfigMap NAME-rollout holds it: all that a new gate or a page needs."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, TypeAlias, get_args

import msgspec
import numpy as np

from tabserve.rollout.checks import Rules
from tabserve.rollout.errors import RolloutError
from tabserve.rollout.scrape import Tally

FORMAT = 1
MOST_POINTS = 300
"""Points of the history; when there are more, every second one is left out."""
Phase: TypeAlias = Literal["wait", "watch", "shadow", "step", "held", "back", "undecided"]
PHASES: tuple[Phase, ...] = get_args(Phase)


class Slot(msgspec.Struct):
    """A release in its slot: the slot's letter, the release's id, its bundle's digest, and its images by container."""

    slot: str
    release: str
    digest: str = ""
    images: dict[str, str] = {}


class Change(msgspec.Struct):
    """A change of the phase or of the weight. at: seconds since the rollout began. who: the gate, or a command."""

    at: float
    phase: Phase
    weight: int
    why: str
    who: str = "gate"


class Point(msgspec.Struct):
    """What the evidence was at a time: logarithms, together and by check, and the proofs by budget."""

    at: float
    weight: int
    together: float
    checks: dict[str, float]
    budgets: dict[str, float]


class Counted(msgspec.Struct):
    """A `Tally` as JSON."""

    requests: float = 0
    errors: float = 0
    refused: float = 0
    timed: float = 0
    slower: list[float] = []
    decisions: dict[str, float] = {}
    scores: list[float] = []

    @classmethod
    def of(cls, tally: Tally) -> Counted:
        """A tally to keep."""
        content = dataclasses.asdict(tally)
        return cls(**(content | {"slower": tally.slower.tolist(), "scores": tally.scores.tolist()}))

    def tally(self) -> Tally:
        """The tally that was kept."""
        content = msgspec.structs.asdict(self)
        return Tally(**(content | {"slower": np.array(self.slower), "scores": np.array(self.scores)}))


class Step(msgspec.Struct):
    """The requests that were counted at one weight."""

    weight: int
    canary: Counted
    stable: Counted


class Evidence(msgspec.Struct):
    """What a `Ledger` needs to go on; logarithms by check [events][odds] and by budget."""

    peak: float
    percent: float | None
    dispersion: float | None
    decisions: list[str]
    logs: dict[str, list[list[float]]]
    budgets: dict[str, list[float]]


class Pod(msgspec.Struct):
    """A pod of a slot, and how often its containers were restarted since it was first seen."""

    slot: str
    name: str
    restarts: int


class State(msgspec.Struct):
    """A rollout so far.

    began, updated: UTC, ISO 8601. seconds: how long the gate has run. step: number of the present step, from 0. weight:
    percent of the requests that the route gives the canary. mirror: percent whose copies are compared. told: the
    present sentence for people. order: `hold`, if a command asked for that. job, pod: the gate's Job, and its pod as
    NAME/UID. counted: requests at each weight so far, in order. copies: what the shadow has counted, as
    `tabserve.rollout.compare` writes it.
    """

    name: str
    namespace: str
    stable: Slot
    canary: Slot
    rules: Rules
    steps: list[int]
    began: str
    format: int = FORMAT
    updated: str = ""
    seconds: float = 0
    phase: Phase = "wait"
    step: int = -1
    weight: int = 0
    mirror: int = 0
    told: str = ""
    order: str = ""
    job: str = ""
    pod: str = ""
    changes: list[Change] = []
    history: list[Point] = []
    counted: list[Step] = []
    evidence: Evidence | None = None
    pods: list[Pod] = []
    not_judged: list[str] = []
    copies: dict[str, Any] | None = None

    @property
    def at_phase(self) -> float:
        """How many seconds the present phase, or step, has lasted."""
        return self.seconds - (self.changes[-1].at if self.changes else 0)

    def text(self) -> str:
        """JSON, which `parse` reads."""
        return msgspec.json.encode(self).decode()

    def add(self, point: Point) -> None:
        """Add a point to the history, and thin it if it has grown too long."""
        self.history.append(point)
        if len(self.history) > MOST_POINTS:
            self.history = [*self.history[:-1:2], self.history[-1]]


class _Head(msgspec.Struct):
    format: int


def parse(text: str, source: str) -> State:
    """The state in a text. Raises RolloutError for one of another version, or a damaged one."""
    remedy = "Run `tabserve rollout forget RELEASE`, which removes it; the rollout then begins anew."
    try:
        head = msgspec.json.decode(text, type=_Head)
        if head.format != FORMAT:
            raise RolloutError(source, f"expected a rollout's state of format {FORMAT}, got {head.format}", remedy)
        return msgspec.json.decode(text, type=State)
    except msgspec.MsgspecError as error:
        raise RolloutError(source, f"is no state of a rollout ({error})", remedy) from None
