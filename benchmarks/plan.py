"""Plans: what is measured, and of which peer.

`quick` for every day, `full` for what is published, `reasons` for decisions and their reasons, `soak` for an hour.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from benchmarks import roster
from benchmarks.payloads import Encoding
from benchmarks.results import CLOSED, HALF, OVERLOAD
from benchmarks.roster import Peer

OVERLOAD_CONNECTIONS = 1024
OVERLOAD_SECONDS = 60
CAPACITY_SECONDS = 10
"""How long capacity is measured before and after an overload, because the machine's speed changes within a minute."""
TURNS = 4
"""How many turns chains take of each step at one connection.

There, a few seconds of a different machine speed make more difference than all that is compared.
"""
SOAK_MINUTES = 60
BESIDE_MINUTES = 10


@dataclass(frozen=True)
class Step:
    """A load on a running peer; a `load` other than CLOSED is a multiple of its throughput with 32 connections."""

    rows: int
    encoding: Encoding
    connections: int
    load: float = CLOSED
    seconds: float | None = None


@dataclass(frozen=True)
class Visit:
    """A peer that is started with a model and measured step by step.

    beside: how often the last step is then measured again, on the peer and on a fresh start at the same time.
    """

    peer: Peer
    model: str
    steps: tuple[Step, ...]
    beside: int = 0


@dataclass(frozen=True)
class Plan:
    """All visits, each made once per round; `seconds` is the length of a step that does not give its own.

    groups: visits whose peers run at the same time, measured one right after the other.
    """

    name: str
    rounds: int
    seconds: float
    groups: tuple[tuple[Visit, ...], ...]
    bare: tuple[str, ...] = ()

    @property
    def visits(self) -> tuple[Visit, ...]:
        """The visits of all groups."""
        return tuple(visit for group in self.groups for visit in group)


def _steps(encoding: Encoding, rows: int, *connections: int) -> tuple[Step, ...]:
    return tuple(Step(rows, encoding, each) for each in connections)


def _xgboost(peer: Peer, *steps: Step) -> Visit:
    return Visit(peer, "xgboost", steps)


def _overload(rows: int) -> Visit:
    closed = Step(rows, "json", 32, seconds=CAPACITY_SECONDS)
    over = Step(rows, "json", OVERLOAD_CONNECTIONS, OVERLOAD, OVERLOAD_SECONDS)
    return _xgboost(roster.TABSERVE, closed, over, closed)


_JSON = (*_steps("json", 1, 1, 32), *_steps("json", 64, 32))
_SIZES = tuple(step for rows in (4, 16, 64, 256) for step in _steps("json", rows, 1))
_COLUMNS = _steps("columns", 1, 1, 32)
_GRPC = _steps("grpc", 1, 1, 32)
_ONE_BY_ONE = TURNS * _steps("json", 1, 1)
# Asked for nothing by name, tabserve's chain also decides, which KServe's does not, so both get the same request.
_CHAINED = (
    *TURNS * (*_steps("json-predict_proba", 1, 1), *_steps("json", 1, 1)),
    *_steps("json-predict_proba", 1, 16),
)
_TOLD = tuple(replace(step, seconds=1) for step in 3 * _steps("records", 1, 1, 16))
_EXPLAINED = tuple(
    tuple(Visit(peer, model, _TOLD) for peer in (roster.DECISIONS, roster.REASONS, roster.SOME_REASONS))
    for model in ("logistic", "xgboost", "histogram", "payments")
)
_CONCURRENCY = _steps("json", 1, 4, 8, 16, 64, 128)
_BINARY = _steps("binary", 64, 1, 32)

QUICK = Plan(
    "quick",
    rounds=2,
    seconds=5,
    groups=(
        tuple(
            _xgboost(peer, *_steps("json", 1, 1, 32))
            for peer in (roster.TABSERVE, roster.FASTAPI, roster.KSERVE_CUSTOM, roster.NOOP_HTTP)
        ),
    ),
)

FULL = Plan(
    "full",
    rounds=3,
    seconds=6,
    groups=(
        # The no-ops repeat tabserve's answer to the first request of their first step. So tabserve comes before them
        # with the same first step, or in an earlier group.
        (
            _xgboost(roster.TABSERVE, *_JSON, *_CONCURRENCY, *_SIZES, *_BINARY),
            _xgboost(roster.NOOP_HTTP, *_steps("json", 1, 1, 32), *_CONCURRENCY),
            _xgboost(roster.FASTAPI, *_JSON, *_CONCURRENCY, *_SIZES),
            _xgboost(roster.KSERVE_CUSTOM, *_JSON, *_CONCURRENCY, *_SIZES, *_BINARY),
            _xgboost(roster.KSERVE_QUIET, *_JSON, *_BINARY),
            _xgboost(roster.KSERVE_XGBSERVER, *_JSON),
            _xgboost(roster.MLSERVER, *_JSON),
            _xgboost(roster.MLSERVER_SERIAL, *_JSON),
            _xgboost(roster.MLSERVER_BATCHING, *_JSON),
        ),
        tuple(_xgboost(peer, *_steps("json", 64, 32)) for peer in (roster.TABSERVE, roster.NOOP_HTTP)),
        tuple(_xgboost(peer, *_GRPC) for peer in (roster.TABSERVE, roster.NOOP_GRPC, roster.KSERVE_CUSTOM)),
        tuple(_xgboost(peer, *_CHAINED) for peer in (roster.CHAIN, roster.KSERVE_CHAIN_REST, roster.KSERVE_CHAIN_GRPC)),
        (
            _xgboost(roster.DECISIONS, *_steps("records", 1, 16), *TURNS * _steps("records", 1, 1)),
            _xgboost(roster.TABSERVE, *_ONE_BY_ONE),
        ),
        *(
            tuple(Visit(peer, model, _COLUMNS) for peer in (roster.TABSERVE, roster.KSERVE_SKLEARNSERVER))
            for model in ("logistic", "forest", "histogram")
        ),
        *_EXPLAINED,
        (_overload(rows=1),),
        (_overload(rows=64),),
    ),
    bare=("xgboost", "logistic", "forest", "histogram"),
)

REASONS = Plan("reasons", rounds=3, seconds=2, groups=_EXPLAINED)

SOAK = Plan(
    "soak",
    rounds=1,
    seconds=5,
    groups=(
        (
            replace(
                _xgboost(roster.TABSERVE, *_steps("json", 1, 32), *((Step(1, "json", 64, HALF, 60),) * SOAK_MINUTES)),
                beside=BESIDE_MINUTES,
            ),
        ),
    ),
)


def of_model(plan: Plan, model: str) -> Plan:
    """The part of a plan for one model."""
    groups = (tuple(visit for visit in group if visit.model == model) for group in plan.groups)
    return replace(plan, groups=tuple(filter(None, groups)), bare=tuple(name for name in plan.bare if name == model))


def in_turn(group: tuple[Visit, ...]) -> Iterator[tuple[Step, list[int]]]:
    """Every step, in each visit's own order, with the positions of the visits that share it.

    The next step is from the visit with the most steps left, so visits with different steps take turns.
    """
    left = [deque(visit.steps) for visit in group]
    while any(left):
        step = max(left, key=len)[0]
        sharing = [at for at, steps in enumerate(left) if steps and steps[0] == step]
        for at in sharing:
            left[at].popleft()
        yield step, sharing


PLANS = {plan.name: plan for plan in (QUICK, FULL, REASONS, SOAK)}
