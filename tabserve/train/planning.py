"""Measure which engine is faster for requests of which size, when a bundle is saved."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from tabserve.arrays import Features, rows, take
from tabserve.bundle.manifest import EngineRange, Timing
from tabserve.engines.engine import Engine

SIZES = (1, 4, 16, 64, 256)
_ROUNDS = 100
_FEWEST_ROUNDS = 10
_SECONDS = 1.0
_WORTH_IT = 2 / 3
_CLEAR = 2 / 3


def measure(engines: Sequence[Engine], features: Features, outputs: Sequence[str]) -> list[tuple[Timing, ...]]:
    """Every engine's shortest call at every size, with different rows in each call.

    The engines take turns, because other work on the machine only adds to a time. The ratio of two engines then varies
    far less than that of medians timed one engine after the other (`benchmarks/NOTES.md`, 2026-11-28).
    """
    random, end = np.random.default_rng(0), time.perf_counter() + _SECONDS
    seconds: list[list[list[float]]] = []  # by round, size and engine
    while len(seconds) < _FEWEST_ROUNDS or (
        len(seconds) < _ROUNDS and time.perf_counter() < end and not _settled(seconds)
    ):
        samples = [take(features, random.integers(0, rows(features), size)) for size in SIZES]
        seconds.append([[_seconds(engine, some, outputs) for engine in engines] for some in samples])
    shortest = (1e6 * np.min(seconds, axis=0)).round(1).T.tolist()
    return [
        tuple(Timing(engine.name, size, each) for size, each in zip(SIZES, calls, strict=True))  # type: ignore[arg-type]
        for engine, calls in zip(engines, shortest, strict=True)
    ]


def _settled(seconds: Sequence[Sequence[Sequence[float]]]) -> bool:
    """Whether more rounds can't change the plan: at every size one of two engines is faster by far."""
    if len(seconds[0][0]) != 2:
        return False
    own, other = np.min(seconds, axis=0).T
    return bool(np.all((other < _CLEAR * _WORTH_IT * own) | (_CLEAR * other > _WORTH_IT * own)))


def plan(native: Sequence[Timing], converted: Sequence[Timing]) -> tuple[EngineRange, ...]:
    """Ranges of rows, each with the faster engine.

    The converted form must be faster by a third, because it rounds. Where the two are close, the native engine is
    better under load: joined requests share the fixed cost of its call. Between two sizes with different winners the
    plan changes at their geometric mean.
    """
    winners = [
        other.engine if other.microseconds < _WORTH_IT * own.microseconds else own.engine
        for own, other in zip(native, converted, strict=True)
    ]
    ranges = [EngineRange(0, winners[0])]
    for index in range(1, len(winners)):
        if winners[index] != winners[index - 1]:
            between = math.isqrt(native[index - 1].rows * native[index].rows)
            ranges.append(EngineRange(between, winners[index]))
    return tuple(ranges)


def _seconds(engine: Engine, features: Features, outputs: Sequence[str]) -> float:
    start = time.perf_counter()
    engine.run(features, outputs)
    return time.perf_counter() - start
