"""The score's scale as a drawing: the reference's scores in columns, the bands below them, and ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from tabserve.arrays import Array
from tabserve.pages.scale import Scale
from tabserve.schema.ranges import Range

WIDTH = 440.0
_MARGIN = 10.0
_COLUMNS, _TOP, _BASE = 60, 30.0, 84.0
_BAND = 24.0
_CHARACTER = 7.6
"""How wide a character of a band's label is."""
_APART = 34.0
"""How far ticks are apart, at least."""
_OUTER = 0.005
"""The share of the reference at each end that is not drawn, where the scale has no ends of its own."""


class Column(NamedTuple):
    """How many of the reference's scores are in a part of the scale, as a height; `rows` of them."""

    left: float
    width: float
    height: float
    rows: int


class Band(NamedTuple):
    """A band of the scale. shows: whether its label fits into it."""

    label: str
    left: float
    width: float
    shows: bool


class Drawing(NamedTuple):
    """Where everything is. ticks: places and numbers."""

    axis: Scale
    columns: list[Column]
    bands: list[Band]
    ticks: list[tuple[float, float]]
    top: float
    base: float
    height: float


def drawing(scores: Array, bands: Sequence[Range], limits: tuple[float, float] | None) -> Drawing:
    """The scale of these scores [rows] and bands. limits: of a score that has some."""
    finite = scores[np.isfinite(scores)].astype(np.float64)
    edges = [band.low for band in bands if band.low is not None and math.isfinite(band.low)]
    axis = Scale(*(limits or _limits(finite, edges)), _MARGIN, WIDTH - _MARGIN)
    foot = _BASE + (_BAND + 4 if bands else 0)
    ticks = _ticks(axis, edges)
    return Drawing(axis, _columns(axis, finite), _bands(axis, bands), ticks, _TOP, _BASE, foot + 24)


def _limits(scores: Array, edges: Sequence[float]) -> tuple[float, float]:
    """From where to where most of the scores and all edges are."""
    ends = np.quantile(scores, [_OUTER, 1 - _OUTER]).tolist() if len(scores) else []
    low, high = min([*ends, *edges], default=0.0), max([*ends, *edges], default=1.0)
    margin = (high - low) * 0.06 or 1.0
    return low - margin, high + margin


def _columns(axis: Scale, scores: Array) -> list[Column]:
    counts, places = np.histogram(np.clip(scores, axis.low, axis.high), _COLUMNS, (axis.low, axis.high))
    highest = counts.max() or 1
    return [
        Column(
            axis(start),
            round(axis(end) - axis(start) - 0.8, 1),
            max(round((_BASE - _TOP) * rows / highest, 1), 1.5),
            rows,
        )
        for rows, (start, end) in zip(counts.tolist(), pairwise(places.tolist()), strict=True)
        if rows
    ]


def _bands(axis: Scale, bands: Sequence[Range]) -> list[Band]:
    drawn = []
    for band in bands:
        left = axis(axis.low if band.low is None else band.low)
        width = round(axis(axis.high if band.high is None else band.high) - left, 1)
        drawn.append(Band(band.label, left, width, width > _CHARACTER * len(band.label) + 8))
    return drawn


def _ticks(axis: Scale, edges: Sequence[float]) -> list[tuple[float, float]]:
    """The bands' edges, and round numbers between them where there is room."""
    places: list[tuple[float, float]] = []
    for number in [*edges, *_round(axis.low, axis.high)]:
        place = axis(number)
        if axis.low <= number <= axis.high and all(abs(place - other) >= _APART for other, _ in places):
            places.append((place, number))
    return sorted(places)


def _round(low: float, high: float) -> list[float]:
    """About five round numbers."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * each for each in (1, 2, 2.5, 5, 10) if power * each >= raw * 0.999)
    return [round(at * step, 12) for at in range(math.ceil(low / step), math.floor(high / step) + 1)]
