"""Which engine is faster for a request of how many rows, measured when a bundle is saved."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence

import numpy as np

from tabserve.bundle.manifest import EngineRange, Timing
from tabserve.engines.engine import Engine, Features, rows, take

SIZES = (1, 4, 16, 64, 256)
_CALLS = 50
_SECONDS = 0.25
_WORTH_IT = 2 / 3
"""A machine's mood moves the ratio of two engines this much: XGBoost's 64 rows took 0.38 to 0.79 ms in four bundles of
one model, ONNX Runtime's 0.51 to 0.66 (2026-11-28)."""


def measure(engine: Engine, features: Features, outputs: Sequence[str]) -> tuple[Timing, ...]:
    """Median time of a call at every size, other rows each call."""
    return tuple(
        Timing(engine.name, size, round(1e6 * _median_seconds(engine, features, outputs, size), 1))  # type: ignore[arg-type]
        for size in SIZES
    )


def plan(native: Sequence[Timing], converted: Sequence[Timing]) -> tuple[EngineRange, ...]:
    """Ranges of rows, each with the faster engine.

    The converted form must be faster by a third: it rounds, and where the two are close the native engine is the better
    one under load, as requests that are joined share what its call costs besides their rows. Between two sizes with
    different winners the plan changes at their geometric mean.
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


def _median_seconds(engine: Engine, features: Features, outputs: Sequence[str], size: int) -> float:
    random = np.random.default_rng(size)
    end = time.perf_counter() + _SECONDS
    seconds = []
    for call in range(_CALLS):
        some = take(features, random.integers(0, rows(features), size))
        start = time.perf_counter()
        engine.run(some, outputs)
        seconds.append(time.perf_counter() - start)
        if call >= 4 and time.perf_counter() > end:
            break
    return statistics.median(seconds[1:])
