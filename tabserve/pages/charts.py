"""Plots as SVG, in the page's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise

_WIDTH, _HEIGHT, _FOOT = 360, 150, 18
_BASE = _HEIGHT - _FOOT
_ROW, _NAMES, _SHARES = 20, 130, 60
_MOST_ROWS = 12
_CELLS, _MOST_WHOLE = 40, 60
_LONGEST = 24


def compared(label: str, names: Sequence[str], now: Sequence[float], before: Sequence[float]) -> str:
    """Bars of the shares by cell as they are now, and lines of what they were before."""
    highest = max([*now, *before, 1e-9])
    step = _WIDTH / len(names)
    drawn = []
    for at, (name, share, old) in enumerate(zip(names, now, before, strict=True)):
        tip = f"<title>{escape(name)}: {share:.1%}, reference {old:.1%}</title>"
        high, line = (_BASE * each / highest for each in (share, old))
        drawn.append(
            f'<g>{tip}<rect x="{at * step + 1:.1f}" y="{_BASE - high:.1f}" width="{step - 2:.1f}" height="{high:.1f}" '
            f'fill="var(--first)"/><path d="M{at * step:.1f} {_BASE - line:.1f}h{step:.1f}" stroke="var(--second)" '
            f'stroke-width="2.5"/></g>'
        )
    return _svg(label, "".join(drawn) + _ends(_short(names[0]), _short(names[-1])))


def bars(label: str, shares: Sequence[tuple[str, float]]) -> str:
    """A bar for each name, the most frequent first; the rest together where there are many."""
    ordered = sorted(shares, key=lambda each: -each[1])
    if len(ordered) > _MOST_ROWS:
        rest = ordered[_MOST_ROWS - 1 :]
        ordered = [*ordered[: _MOST_ROWS - 1], (f"{len(rest)} others", sum(share for _, share in rest))]
    longest = max([share for _, share in ordered] or [1.0]) or 1.0
    room, drawn = float(_WIDTH - _NAMES - _SHARES), []
    for at, (name, share) in enumerate(ordered):
        y, width = at * _ROW, max(share / longest * room, 0.5)
        drawn.append(
            f"<g><title>{escape(name)}: {share:.2%}</title>{_text(_NAMES - 6, y + 14, _short(name, 17), 'end')}"
            f'<rect x="{_NAMES}" y="{y + 3}" width="{width:.1f}" height="{_ROW - 6}" fill="var(--first)"/>'
            f"{_text(_NAMES + width + 5, y + 14, f'{share:.1%}')}</g>"
        )
    return _svg(label, "".join(drawn), height=max(len(ordered), 1) * _ROW)


def density(label: str, edges: Sequence[float], counts: Sequence[int]) -> str:
    """How dense numbers are, from rows in bins. What is far beyond nine tenths of them is not drawn.

    edges [bins + 1] ascending; counts [bins].
    """
    low, high = _window(edges, counts)
    step, cells = (high - low) / _CELLS, [0.0] * _CELLS
    for (start, end), count in zip(pairwise(edges), counts, strict=True):
        _spread(cells, (start - low) / step, (end - low) / step, count)
    spans = [f"{low + at * step:.6g} to {low + (at + 1) * step:.6g}" for at in range(_CELLS)]
    return _columns(label, spans, cells, sum(counts))


def whole(label: str, edges: Sequence[float], counts: Sequence[int]) -> str:
    """How often each whole number is there, from rows in bins; those of a bin count as equally frequent.

    Arguments as of `density`, which it is where there are very many numbers.
    """
    low, high = (round(end) for end in _window(edges, counts))
    if high - low >= _MOST_WHOLE:
        return density(label, edges, counts)
    masses = dict.fromkeys(range(low, high + 1), 0.0)
    for at, ((start, end), count) in enumerate(zip(pairwise(edges), counts, strict=True), 1):
        last = math.floor(end) + 1 if at == len(counts) else math.ceil(end)
        inside = range(math.ceil(start), last)
        for number in inside:
            if number in masses:
                masses[number] += count / len(inside)
    return _columns(label, [str(number) for number in masses], list(masses.values()), sum(counts))


def _columns(label: str, names: Sequence[str], masses: Sequence[float], total: int) -> str:
    """A column for each part of a scale."""
    highest, width = max([*masses, 1e-9]), _WIDTH / len(masses)
    drawn = []
    for at, (name, mass) in enumerate(zip(names, masses, strict=True)):
        height = _BASE * mass / highest
        drawn.append(
            f'<g><title>{name}: {mass / (total or 1):.1%}</title><rect x="{at * width + 0.5:.1f}" '
            f'y="{_BASE - height:.1f}" width="{width - 1:.1f}" height="{height:.1f}" fill="var(--first)"/></g>'
        )
    return _svg(label, "".join(drawn) + _ends(names[0].partition(" to ")[0], names[-1].rpartition(" to ")[2]))


def calibration(points: Sequence[tuple[float | None, float | None]]) -> str:
    """The share of hits by mean score, with the line on which both are the same."""
    known = [(score, hits) for score, hits in points if score is not None and hits is not None]
    drawn = [f'<path d="M0 {_BASE}L{_WIDTH} 0" stroke="var(--line)"/>']
    for score, hits in known:
        tip = f"<title>score {score:.3f}, hits {hits:.1%}</title>"
        x, y = min(max(score, 0), 1) * _WIDTH, _BASE - hits * _BASE
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="var(--first)">{tip}</circle>')
    drawn.append(_text(0, _HEIGHT - 4, "mean score, 0 to 1"))
    return _svg("share of hits by score", "".join(drawn))


def _window(edges: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
    """Where most numbers are: from the bin with the first twentieth to that with the last, and half as much beyond."""
    total, below = sum(counts), 0.0
    inner = []
    for (start, end), count in zip(pairwise(edges), counts, strict=True):
        if below + count > 0.05 * total and below < 0.95 * total:
            inner += [start, end]
        below += count
    low, high = (min(inner), max(inner)) if inner else (edges[0], edges[-1])
    margin = (high - low) / 2
    low, high = max(edges[0], low - margin), min(edges[-1], high + margin)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _spread(cells: list[float], start: float, end: float, count: float) -> None:
    """Add rows to the cells that their bin, from `start` to `end` in cells, is over."""
    if end - start < 1e-9:
        at = min(int(start), len(cells) - 1)
        if 0 <= start <= len(cells):
            cells[at] += count
        return
    for at in range(max(int(start), 0), min(int(end) + 1, len(cells))):
        cells[at] += count * max(min(end, at + 1) - max(start, at), 0.0) / (end - start)


def _ends(left: str, right: str) -> str:
    return _text(0, _HEIGHT - 4, left) + _text(_WIDTH, _HEIGHT - 4, right, "end")


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" fill="var(--quiet)" font-size="11">{escape(text)}</text>'


def _svg(label: str, content: str, height: float = _HEIGHT) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}">{content}</svg>'


def _short(name: str, longest: int = _LONGEST) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"
