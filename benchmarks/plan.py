"""What is measured of which peer: `quick` for every day, `full` for the results that are published."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import roster
from benchmarks.payloads import Encoding
from benchmarks.results import CLOSED
from benchmarks.roster import Peer


@dataclass(frozen=True)
class Step:
    """A load on a running peer; `load` other than CLOSED: so many times its throughput with 32 connections."""

    rows: int
    encoding: Encoding
    connections: int
    load: float = CLOSED
    seconds: float | None = None


@dataclass(frozen=True)
class Visit:
    """A peer that is started with a model and measured step by step."""

    peer: Peer
    model: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Plan:
    """Every visit is made once a round."""

    name: str
    rounds: int
    seconds: float
    visits: tuple[Visit, ...]


def _steps(encoding: Encoding, rows: int, *connections: int) -> tuple[Step, ...]:
    return tuple(Step(rows, encoding, each) for each in connections)


_ONE_ROW = _steps("json", 1, 1, 32)

QUICK = Plan(
    "quick",
    rounds=2,
    seconds=5,
    visits=tuple(
        Visit(peer, "xgboost", _ONE_ROW)
        for peer in (roster.TABSERVE, roster.FASTAPI, roster.KSERVE_CUSTOM, roster.NOOP_HTTP)
    ),
)
