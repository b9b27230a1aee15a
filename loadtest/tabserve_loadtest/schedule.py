"""Decide when requests are meant to arrive, before the run and whatever the server does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

Seconds: TypeAlias = npt.NDArray[np.float64]
Process: TypeAlias = Literal["poisson", "constant"]


class Segment(msgspec.Struct, frozen=True):
    """A stretch of a run: arrivals per second, and its length in seconds."""

    rate: float
    seconds: float


def arrivals(process: Process, segments: Sequence[Segment], seed: int) -> Seconds:
    """Ascending offsets [s] of all arrivals of the segments, one after the other; the same for the same seed.

    A Poisson process is drawn as its number of arrivals and, given that, uniform times.
    """
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0.0], np.cumsum([segment.seconds for segment in segments])])
    drawn = [start + _one(process, segment, rng) for start, segment in zip(starts, segments, strict=False)]
    return np.concatenate(drawn) if drawn else np.empty(0)


def _one(process: Process, segment: Segment, rng: np.random.Generator) -> Seconds:
    if process == "constant":
        return np.arange(round(segment.rate * segment.seconds)) / segment.rate
    return np.sort(rng.uniform(0, segment.seconds, rng.poisson(segment.rate * segment.seconds)))


def share(offsets: Seconds, index: int, count: int) -> Seconds:
    """The arrivals of one of `count` generators: every `count`-th, so that together they send exactly all."""
    return offsets[index::count]
