"""An explanation as one self-contained HTML page."""

from __future__ import annotations

from tabserve.decision_log import telling
from tabserve.decision_log.explain import Explanation
from tabserve.pages.page import render
from tabserve.pages.scale import Scale
from tabserve.schema.ranges import span

_WIDTH, _MARGIN = 720.0, 16.0
"""Of the drawing of the bands."""
_HALF = 50.0
"""How far the longest bar reaches to one side."""


def page(found: Explanation) -> str:
    """The page's HTML."""
    why = found.why
    longest = max((abs(push.amount) for push in why.pushes), default=0.0) if why else 0.0
    return render(
        "decision.html",
        found=found,
        proof=telling.proof(found),
        difference=telling.difference,
        span=span,
        axis=Scale(*found.limits, _MARGIN, _WIDTH - _MARGIN),
        bar=Scale(-(longest or 1.0), longest or 1.0, -_HALF, _HALF),
    )
