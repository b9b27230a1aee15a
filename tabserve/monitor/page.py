"""The report as one HTML page, with its plots as SVG in the page's colours."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tabserve.monitor.run import Compared, Report
from tabserve.monitor.text import date
from tabserve.monitor.verdict import told
from tabserve.pages.page import render

_WIDTH, _HEIGHT, _FOOT = 360, 150, 18


def page(report: Report) -> str:
    """The page's HTML."""
    charts = [(title(each), histogram(each)) for each in report.columns]
    deciles = [] if report.performance is None else report.performance.metrics.deciles
    drawn = calibration([(row[1], row[2]) for row in deciles]) if deciles else ""
    alarmed = [each for each in report.equity if each.differs]
    return render(
        "monitor.html",
        report=report,
        verdict=_plain(report.verdict),
        charts=charts,
        calibration=drawn,
        date=date,
        told=lambda finding: _plain(told(finding)),
        different=alarmed,
    )


def title(compared: Compared) -> str:
    """What a plot is of."""
    return compared.name if compared.of == "feature" else f"the {compared.of}"


def histogram(compared: Compared) -> str:
    """Bars of the shares by cell: those of the log, and the reference's as outlines."""
    highest = max([*compared.now, *compared.reference, 1e-9])
    step = _WIDTH / len(compared.names)
    drawn = []
    for at, (name, now, before) in enumerate(zip(compared.names, compared.now, compared.reference, strict=True)):
        tip = f"<title>{escape(name)}: {now:.1%}, reference {before:.1%}</title>"
        high, old = ((_HEIGHT - _FOOT) * share / highest for share in (now, before))
        base = _HEIGHT - _FOOT
        drawn.append(
            f'<g>{tip}<rect x="{at * step + 1:.1f}" y="{base - high:.1f}" width="{step - 2:.1f}" height="{high:.1f}" '
            f'fill="var(--first)"/><path d="M{at * step:.1f} {base - old:.1f}h{step:.1f}" stroke="var(--second)" '
            f'stroke-width="2.5"/></g>'
        )
    ends = (
        f'<text x="0" y="{_HEIGHT - 4}" fill="var(--quiet)" font-size="11">{escape(_short(compared.names[0]))}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 4}" text-anchor="end" fill="var(--quiet)" font-size="11">'
        f"{escape(_short(compared.names[-1]))}</text>"
    )
    return _svg(f"shares of {compared.name}", "".join(drawn) + ends)


def calibration(points: Sequence[tuple[float | None, float | None]]) -> str:
    """The share of hits by mean score, with the line on which both are the same."""
    size = _HEIGHT - _FOOT
    known = [(score, hits) for score, hits in points if score is not None and hits is not None]
    drawn = [f'<path d="M0 {size}L{_WIDTH} 0" stroke="var(--line)"/>']
    for score, hits in known:
        tip = f"<title>score {score:.3f}, hits {hits:.1%}</title>"
        x, y = min(max(score, 0), 1) * _WIDTH, size - hits * size
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="var(--first)">{tip}</circle>')
    drawn.append(f'<text x="0" y="{_HEIGHT - 4}" fill="var(--quiet)" font-size="11">mean score, 0 to 1</text>')
    return _svg("share of hits by score", "".join(drawn))


def _svg(label: str, content: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">{content}</svg>'


def _plain(text: str) -> str:
    return text.replace("`", "")


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"
