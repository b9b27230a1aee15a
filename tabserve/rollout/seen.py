"""What one tick of a gate sees, and what it tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tabserve.rollout.checks import TICK_SECONDS
from tabserve.rollout.compare import Copies
from tabserve.rollout.scrape import Tally
from tabserve.rollout.state import Pod


class Route(NamedTuple):
    """The share of the canary, and of the requests whose copies go to the gate, in percent."""

    weight: int
    mirror: int


class Seen(NamedTuple):
    """What one tick saw.

    seconds: since the last one. lacking: why the canary can't be given traffic. route: what the gateway follows, None
    if it has not taken over the newest one. canary, stable: what they counted since the last tick. pods: with their
    containers' restarts so far. ready: pods that answer clients, of canary and stable. by_pod: errors and requests of
    each of stable's. steady: whether the counts show how the requests were split. copies: what the shadow has counted
    in all. order: `back`, `hold`, or nothing.
    """

    seconds: float = TICK_SECONDS
    lacking: str = ""
    route: Route | None = None
    canary: Tally = Tally()
    stable: Tally = Tally()
    pods: Sequence[Pod] = ()
    ready: tuple[int, int] = (1, 1)
    by_pod: Mapping[str, tuple[float, float]] = {}
    steady: bool = True
    copies: Copies | None = None
    order: str = ""


class Notice(NamedTuple):
    """Something to tell the cluster."""

    reason: str
    told: str
    warning: bool = False
