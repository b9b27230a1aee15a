"""Gates that are driven by scripted ticks."""

from __future__ import annotations

from typing import Any

import msgspec

from tabserve.rollout.compare import Copies
from tabserve.rollout.gate import Gate, begin
from tabserve.rollout.scrape import Tally
from tabserve.rollout.seen import Seen
from tabserve.rollout.settings import Course, Gateway, Header, Settings, Shadow
from tabserve.rollout.state import Pod, Slot

SETTINGS = Settings(
    name="fraud",
    namespace="models",
    stable=Slot("a", "0a" * 8),
    canary=Slot("b", "0b" * 8),
    entry="transformer",
    workloads=["predictor", "transformer"],
    gateway=Gateway([{"name": "gateway", "namespace": "kserve"}], ["fraud-models.example.com"], "30s"),
    header=Header("x-tabserve-canary", "always"),
    course=Course(steps=[5, 20, 50], calibrate="1m", shadow=Shadow(percent=0), max_duration="4h"),
    job="fraud-rollout-1",
)


def settings(**course: Any) -> Settings:
    """Settings with some values of `rollout` changed."""
    return msgspec.structs.replace(SETTINGS, course=msgspec.structs.replace(SETTINGS.course, **course))


def gate(**course: Any) -> Gate:
    """A gate that has seen nothing."""
    given = settings(**course)
    return Gate(given, begin(given))


def answered(requests: float, errors: float = 0, refused: float = 0) -> Tally:
    """Requests of a slot, all of them fast, without decisions."""
    return Tally(requests, errors, refused, requests)


def seen(driven: Gate, **facts: Any) -> Seen:
    """A tick at which the gateway follows what the gate wants, and both slots answer 500 requests a minute together."""
    weight = driven.state.weight
    total = facts.pop("total", 84)
    rest = {"canary": answered(round(total * weight / 100)), "stable": answered(total - round(total * weight / 100))}
    given = {"route": driven.wanted(), "ready": (2, 2), "by_pod": {"p": (0.0, 40.0), "q": (0.0, 44.0)}} | rest | facts
    return Seen(**given)


def drive(driven: Gate, ticks: int, **facts: Any) -> Gate:
    """Let so many ticks pass, or fewer if the gate changes its phase or step; every tick sees the same."""
    before = driven.state.phase, driven.state.step
    for _ in range(ticks):
        driven.tick(seen(driven, **facts))
        if (driven.state.phase, driven.state.step) != before:
            break
    return driven


def at_step(step: int, **course: Any) -> Gate:
    """A gate that has just come to a step."""
    driven = gate(**course)
    for _ in range(step + 2):
        drive(driven, 1000)
    assert driven.state.step == step
    return driven


def pairs(asked: int, different: int = 0, canary_refused: int = 0) -> Copies:
    """What a shadow has counted."""
    both = asked - canary_refused
    return Copies(
        received=asked, asked=asked, pairs=both, decided=both, different=different, canary_refused=canary_refused
    )


def pods(canary: int = 0, stable: int = 0) -> list[Pod]:
    """A pod of each slot with so many restarts."""
    return [Pod("a", "fraud-a-1", stable), Pod("b", "fraud-b-1", canary)]
