"""The bands of a decision as ranges of scores, to be shown."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from tabserve.schema.schema import MARGIN, Band, Schema


class Range(msgspec.Struct, frozen=True):
    """A band of scores, from `low` to below `high`; None where it has no end. chosen: whether a score is in it."""

    label: str
    low: float | None
    high: float | None
    chosen: bool = False


def of_schema(schema: Schema, decision: str | None = None) -> list[Range]:
    """The bands from the lowest up; scores below the lowest are in it too. decision: the band that was chosen."""
    bands: Sequence[Band] = schema.outputs.decision.bands[::-1] if schema.outputs.decision else ()
    ends = [band.from_ for band in bands[1:]]
    edges = [(band.label, low, high) for band, low, high in zip(bands, [None, *ends], [*ends, None], strict=False)]
    return [Range(label, low, high, label == decision) for label, low, high in edges]


def limits(schema: Schema, score: float | None = None) -> tuple[float, float]:
    """The ends of the scale that scores are shown on: 0 and 1 for a probability."""
    decision = schema.outputs.decision
    if schema.outputs.classes and schema.task != "anomaly" and not (decision and decision.score == MARGIN):
        return 0.0, 1.0
    edges = [band.from_ for band in decision.bands if math.isfinite(band.from_)] if decision else []
    shown = [*edges, *([score] if score is not None else [])] or [0.0]
    margin = (max(shown) - min(shown)) * 0.15 or 1.0
    return min(shown) - margin, max(shown) + margin


def span(band: Range) -> str:
    """The scores of a band in words."""
    if band.low is None and band.high is None:
        return "every score"
    if band.low is None:
        return f"below {band.high:g}"
    return f"{band.low:g} and above" if band.high is None else f"from {band.low:g} to below {band.high:g}"
