"""The card as one HTML page."""

from __future__ import annotations

import math
from itertools import pairwise

from tabserve.card.contents import Card, Distribution
from tabserve.pages import charts
from tabserve.pages.page import render
from tabserve.pages.scale import Scale
from tabserve.schema import ranges
from tabserve.schema.ranges import span
from tabserve.schema.schema import Derived, Field

_WIDTH, _MARGIN = 720.0, 16.0
"""Of the drawing of the bands."""


def page(card: Card) -> str:
    """The page's HTML."""
    limits = ranges.limits(card.schema)
    tenths = [(each.of, each.metrics.deciles) for each in card.quality if each.metrics and each.metrics.deciles]
    return render(
        "card.html",
        card=card,
        limits=limits,
        span=span,
        axis=Scale(*limits, _MARGIN, _WIDTH - _MARGIN),
        fields=[(field, _taken(field), _notes(field)) for field in card.schema.record],
        derived=[_rule(feature) for feature in card.schema.features if isinstance(feature, Derived)],
        charts=[(name, histogram(card, name, each), caption(each)) for name, each in card.histograms.items()],
        calibrations=[(of, charts.calibration([(row[1], row[2]) for row in deciles])) for of, deciles in tenths],
        different=[each for each in card.equity if each.differs],
    )


def histogram(card: Card, name: str, found: Distribution) -> str:
    """A plot of how a feature was distributed; nothing for one without values."""
    rows, label = sum(found.counts), f"training data: {name}"
    if not rows:
        return ""
    if found.values:
        return charts.bars(
            label, [(each, count / rows) for each, count in zip(found.values, found.counts, strict=True)]
        )
    field = card.schema.fields.get(name)
    if field is not None and field.type == "boolean":
        true = sum(count for end, count in zip(found.edges[1:], found.counts, strict=True) if end >= 1) / rows
        return charts.bars(label, [("true", true), ("false", 1 - true)])
    draw = charts.whole if name in card.schema.whole else charts.density
    return draw(label, found.edges, found.counts)


def caption(found: Distribution) -> str:
    """A distribution in words: from where to where, the middle, and how much is missing."""
    rows, parts = sum(found.counts), []
    if found.edges:
        parts = [f"{found.edges[0]:.6g} to {found.edges[-1]:.6g}", f"half up to {_middle(found):.6g}"]
    if found.missing:
        parts.append(f"{found.missing / (rows + found.missing):.1%} missing")
    return ", ".join(parts)


def _middle(found: Distribution) -> float:
    """The number up to which there is half of the rows or more, as far as the bins tell.

    A frequent number has a bin of its own, whose end is the next number that there is.
    """
    below, half = 0, sum(found.counts) / 2
    for (start, end), count in zip(pairwise(found.edges), found.counts, strict=True):
        below += count
        if below >= half:
            return start if end == math.nextafter(start, math.inf) else end
    return found.edges[-1]


def _taken(field: Field) -> str:
    """The values that a field takes, in words."""
    if field.values:
        return ", ".join(field.values)
    low, high = ("" if bound is None else f"{bound:g}" for bound in (field.min, field.max))
    if low and high:
        return f"{low} to {high}"
    return f"from {low}" if low else f"up to {high}" if high else ""


def _notes(field: Field) -> str:
    """What else holds for a field."""
    words = {"hash": "only its hash is logged", "drop": "not logged", "keep": ""}
    optional = "" if field.required else "may be missing" if field.default is None else f"default {field.default}"
    return " · ".join(filter(None, ["audit only" if field.use else "", optional, words[field.logged]]))


def _rule(feature: Derived) -> tuple[str, str]:
    """A derived feature's name, and what it is made of."""
    ((rule, fields),) = feature.rules.items()
    words = {"days_between": "days between {} and {}", "ratio": "{} divided by {}", "log": "the logarithm of {}"}
    form = words.get(rule, f"the {rule.removesuffix('_of')} of {{}}")
    return feature.name, form.format(*fields)
