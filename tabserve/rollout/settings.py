"""What a gate is told: the chart's values of a rollout, and the names of what it moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tabserve.rollout.checks import BOUNDS, Rules
from tabserve.rollout.errors import RolloutError
from tabserve.rollout.state import Slot

SOURCE = "TABSERVE_ROLLOUT"
"""The environment variable that the chart's Job gives the settings in, as JSON."""
_UNITS = {"s": 1, "m": 60, "h": 3600}
Share = Annotated[float, Meta(gt=0, lt=1)]
Ratio = Annotated[float, Meta(ge=1)]
DURATION = "^[0-9]+[smh]$"
Duration = Annotated[str, Meta(pattern=DURATION)]
Url = Annotated[str, Meta(pattern="^($|https?://.)")]
Percent = Annotated[int, Meta(ge=0, le=100)]


class Slow(msgspec.Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """Requests that take longer than `over` seconds are slow, and at most this share may be."""

    over: float = 0.1
    share: Share = 0.02


class Budget(msgspec.Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """Rates of the canary that it must prove to be below."""

    errors: Share = 0.02
    slow: Slow = Slow()
    disagreement: Share = 0.02


class Change(msgspec.Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """How many times other the odds may be; None if any may be."""

    decisions: Ratio | None = 1.25
    scores: Ratio | None = 1.25


class Shadow(msgspec.Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """Percent of the requests whose copies are compared, at most how many a second, and how many before any step."""

    percent: Percent = 10
    max_per_second: Annotated[float, Meta(gt=0)] = 20
    pairs: Annotated[int, Meta(ge=0)] = 500


class Course(msgspec.Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """The values `rollout` of the chart."""

    steps: Annotated[list[Annotated[int, Meta(ge=1, le=100)]], Meta(min_length=1)]
    false_rollback: Share = 0.01
    false_advance: Share = 0.05
    budget: Budget = Budget()
    change: Change = Change()
    shadow: Shadow = Shadow()
    calibrate: Duration = "30m"
    prometheus: Url = ""
    max_duration: Duration = "24h"
    when_undecided: Literal["hold", "back"] = "hold"

    def rules(self) -> Rules:
        """What is asked of the canary."""
        budget = self.budget
        return Rules(
            self.false_rollback, self.false_advance, budget.errors, budget.slow.share, budget.slow.over,
            budget.disagreement, self.change.decisions, self.change.scores,
        )  # fmt: skip


class Header(msgspec.Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """The header that forces a request to the canary; none with an empty name."""

    name: str
    value: str


class Gateway(msgspec.Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """What the chart's own route has, too."""

    parent_refs: list[dict[str, Any]]
    hostnames: list[str]
    timeout: str


class Settings(msgspec.Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """What a gate is told.

    name: of the chart's objects. job: of the gate's own, which differs with the settings. stable, canary: the slots.
    entry: the workload that clients reach. workloads: all that have pods of their own.
    """

    name: str
    namespace: str
    stable: Slot
    canary: Slot
    entry: Literal["transformer", "predictor"]
    workloads: list[str]
    gateway: Gateway
    header: Header
    course: Course
    job: str = ""

    @property
    def owned(self) -> str:
        """The name of the route and the ConfigMap that the gate makes, and of the Service that leads to its pod."""
        return f"{self.name}-rollout"

    def service(self, slot: Slot) -> str:
        """The Service of a slot that clients reach."""
        return f"{self.name}-{slot.slot}-{self.entry}"


def parse(text: str, job: str) -> Settings:
    """Settings from JSON, for a gate of this Job. Raises RolloutError that says what is wrong."""
    try:
        found = msgspec.json.decode(text, type=Settings)
    except msgspec.MsgspecError as error:
        raise RolloutError(SOURCE, str(error), "Correct the value in the chart's values.") from None
    _verify(found.course)
    return msgspec.structs.replace(found, job=job)


def seconds(duration: str) -> float:
    """The seconds of a duration such as 90s, 30m or 24h."""
    return int(duration[:-1]) * _UNITS[duration[-1]]


def _verify(course: Course) -> None:
    """Raises RolloutError for values that do not go together."""
    if sorted({*course.steps}) != course.steps:
        told = f"expected percentages that rise, got {_listed(course.steps)}"
        raise RolloutError("rollout.steps", told, "Order them, such as 5, 20, 50.")
    if course.budget.slow.over not in BOUNDS:
        told = f"expected one of {_listed(BOUNDS)}, got {course.budget.slow.over:g}"
        raise RolloutError("rollout.budget.slow.over", told, "Requests are counted by these bounds; take the nearest.")


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
