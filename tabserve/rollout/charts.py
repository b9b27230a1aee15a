"""Charts of a rollout's page: SVG in the page's colours, which can be read on a narrow screen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from tabserve.pages.scale import Scale
from tabserve.rollout.checks import BOUNDS
from tabserve.rollout.state import Change, Point

WIDTH, LEFT, RIGHT, TOP = 420, 46, 8, 14
FIRST, SECOND, THIRD = "first", "second", "third"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_DECADE = math.log(10)


class Plot:
    """A plot with its axes. x: values from left to right. y: from the bottom to the top. base: where x's texts are."""

    def __init__(self, label: str, x: tuple[float, float], y: tuple[float, float], height: float = 180) -> None:
        self._label, self._height = label, height
        self.base = height
        self.x = Scale(*x, LEFT, WIDTH - RIGHT)
        self.y = Scale(*y, height, TOP)
        self._parts: list[str] = []
        self._texts: list[str] = []

    def line(
        self, points: Sequence[tuple[float, float]], colour: str, *, dash: bool = False, dot: bool = False
    ) -> None:
        """Join points by a line. dot: whether there is one at its end."""
        if not points:
            return
        path = " ".join(f"{self.x(x)},{self.y(y)}" for x, y in points)
        dashed = ' stroke-dasharray="5 4"' if dash else ""
        self._parts.append(f'<polyline points="{path}" fill="none" stroke="var(--{colour})" stroke-width="2"{dashed}/>')
        if dot:
            x, y = points[-1]
            self._parts.append(f'<circle cx="{self.x(x)}" cy="{self.y(y)}" r="3" fill="var(--{colour})"/>')

    def area(self, points: Sequence[tuple[float, float]], bottom: float, top: float) -> None:
        """Fill what is below a line, in a strip of its own: y from 0 to 100 is between these heights."""
        y = Scale(0, 100, bottom, top)
        path = " ".join(f"{self.x(x)},{y(value)}" for x, value in points)
        ends = f"{self.x(points[0][0])},{bottom} {path} {self.x(points[-1][0])},{bottom}"
        self._parts.append(f'<polygon points="{ends}" fill="var(--third)" fill-opacity=".3" stroke="var(--third)"/>')

    def across(self, value: float, colour: str, text: str = "") -> None:
        """A line at one height."""
        at = self.y(value)
        self._parts.append(f'<path d="M{LEFT} {at}H{WIDTH - RIGHT}" stroke="var(--{colour})" stroke-width="1.5"/>')
        if text:
            self.text(WIDTH - RIGHT, at - 4, text, colour, "end")

    def bar(self, left: float, right: float, value: float, colour: str) -> None:
        """A bar from the bottom."""
        at, top = self.x(left), self.y(value)
        width, height = max(self.x(right) - at, 1), self._height - top
        self._parts.append(
            f'<rect x="{at}" y="{top}" width="{width:.1f}" height="{height:.1f}" fill="var(--{colour})"/>'
        )

    def mark(self, x: float, y: float, text: str, colour: str = "bad") -> None:
        """A cross with a text."""
        at, up = self.x(x), self.y(y)
        self._parts.append(
            f'<path d="M{at - 5} {up - 5}l10 10m0 -10l-10 10" stroke="var(--{colour})" stroke-width="2"/>'
        )
        self.text(at + 9, up - 4, text, colour)

    def text(self, x: float, y: float, text: str, colour: str = "quiet", anchor: str = "start") -> None:
        """A text at a place of the drawing."""
        self._texts.append(
            f'<text x="{x}" y="{y}" fill="var(--{colour})" font-size="12" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def ticks(self, xs: Sequence[tuple[float, str]] = (), ys: Sequence[tuple[float, str]] = ()) -> None:
        """Texts at both axes, with a faint line for each of y."""
        for value, text in ys:
            at = self.y(value)
            self._parts.insert(0, f'<path d="M{LEFT} {at}H{WIDTH - RIGHT}" stroke="var(--line)"/>')
            self.text(LEFT - 5, at + 4, text, anchor="end")
        for value, text in xs:
            anchor = "end" if self.x(value) > WIDTH - 24 else "middle"
            self.text(self.x(value), self.base + 16, text, anchor=anchor)

    def svg(self) -> str:
        """The drawing."""
        size = f'viewBox="0 0 {WIDTH} {self.base + 22:g}"'
        return f'<svg {size} role="img" aria-label="{escape(self._label)}">{"".join(self._parts + self._texts)}</svg>'


def timeline(history: Sequence[Point], changes: Sequence[Change], seconds: float, threshold: float) -> str:
    """The evidence of all checks over time, with the line at which a canary goes back; below it the canary's weight."""
    found = [point.together / _DECADE for point in history]
    line = threshold / _DECADE
    y = (max(min([*found, -1.0]), -4.0), max(line + 0.7, *found, 0) if found else line + 0.7)
    plot = Plot("evidence and weight over time", (0, max(seconds, 1)), y)
    plot.base = 250
    plot.ticks(_times(seconds), _decades(*y))
    plot.across(line, "bad", f"back at {math.exp(threshold):,.0f}")
    plot.line([(point.at, value) for point, value in zip(history, found, strict=True)], FIRST, dot=True)
    plot.area(_weights(changes, seconds), 250, 200)
    plot.text(LEFT - 5, 230, "weight", anchor="end")
    last = 0.0
    for change in changes:
        at = plot.x(change.at)
        if change.weight and at - last > 30:
            plot.text(at + 2, 198, f"{change.weight} %", THIRD)
            last = at
    return plot.svg()


def proofs(history: Sequence[Point], seconds: float, needed: float) -> str:
    """How far the proofs of the budgets are, over time. Colours are those of `budget_colours`."""
    names = sorted({name for point in history for name in point.budgets})
    values = [value / _DECADE for point in history for value in point.budgets.values()]
    line = needed / _DECADE
    y = (max(min([*values, -1.0]), -4.0), min(max([line + 0.7, *values]), line + 6))
    plot = Plot("proofs of budgets over time", (0, max(seconds, 1)), y)
    plot.ticks(_times(seconds), _decades(*y))
    plot.across(line, "good", f"proven at {math.exp(needed):,.0f}")
    for name, colour in budget_colours(names).items():
        found = [(point.at, point.budgets[name] / _DECADE) for point in history if name in point.budgets]
        plot.line(found, colour, dot=True)
    return plot.svg()


def budget_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each budget."""
    return dict(zip(sorted(names), (THIRD, FIRST, SECOND), strict=False))


def latencies(slower: dict[str, tuple[Sequence[float], float]], budget: tuple[float, float] | None = None) -> str:
    """The share of requests that took longer, by seconds, on logarithmic axes.

    slower: for each colour how many took longer than each of BOUNDS, of how many. budget: seconds and a share.
    """
    least = min([*(1 / max(of, 1) for _, of in slower.values()), 0.01])
    y = (math.log10(least), 0.0)
    plot = Plot("share of requests that took longer", (math.log10(BOUNDS[0]), math.log10(BOUNDS[-1])), y)
    shown = [(0.005, "5 ms"), (0.025, "25"), (0.1, "100 ms"), (0.5, "0.5"), (2.5, "2.5"), (10, "10 s")]
    shares = [share for share in (1.0, 0.1, 0.01, 1e-3, 1e-4) if share >= least]
    plot.ticks(
        [(math.log10(at), text) for at, text in shown],
        [(math.log10(share), f"{100 * share:g} %") for share in shares],
    )
    for colour, (counts, of) in slower.items():
        points = [(math.log10(bound), count / of) for bound, count in zip(BOUNDS, counts, strict=True) if of]
        plot.line([(x, math.log10(share) if share else y[0]) for x, share in points], colour, dash=colour == SECOND)
    if budget is not None and budget[1] >= least:
        plot.mark(math.log10(budget[0]), math.log10(budget[1]), "budget")
    return plot.svg()


def histogram(label: str, names: Sequence[str], canary: Sequence[float], stable: Sequence[float] = ()) -> str:
    """The canary's shares by bin as bars, stable's as lines above them; a text below every third bin or so."""
    highest = max([*canary, *stable, 1e-9])
    plot = Plot(label, (0, len(names)), (0, highest * 1.1))
    each = max(1, math.ceil(len(names) / 6))
    texts = [(at + 0.5, name) for at, name in enumerate(names) if at % each == 0]
    plot.ticks(texts, [(0, "0"), (highest, f"{highest:.3g}" if highest > 1 else f"{highest:.0%}")])
    for at, value in enumerate(canary):
        plot.bar(at + 0.1, at + 0.9, value, FIRST)
    for at, value in enumerate(stable):
        plot.line([(at, value), (at + 1, value)], SECOND)
    return plot.svg()


def _weights(changes: Sequence[Change], seconds: float) -> list[tuple[float, float]]:
    points, weight = [(0.0, 0.0)], 0.0
    for change in changes:
        points += [(change.at, weight), (change.at, float(change.weight))]
        weight = float(change.weight)
    return [*points, (max(seconds, 1), weight)]


def _times(seconds: float) -> list[tuple[float, str]]:
    """At most six times on the axis."""
    steps = [(1, "s", each) for each in (10, 30)]
    steps += [(60, "min", 60 * each) for each in (1, 2, 5, 10, 20, 30)]
    steps += [(3600, "h", 3600 * each) for each in (1, 2, 4, 6, 12, 24)]
    unit, name, step = next((each for each in steps if seconds / each[2] <= 6), steps[-1])
    return [(step * at, f"{step * at // unit} {name}" if at else "0") for at in range(int(seconds / step) + 1)]


def _decades(low: float, high: float) -> list[tuple[float, str]]:
    whole = range(math.ceil(low), math.floor(high) + 1)
    step = max(1, math.ceil(len(whole) / 6))
    return [(power, _power(power)) for power in whole if power % step == 0]


def _power(exponent: int) -> str:
    return {0: "1", 1: "10", 2: "100"}.get(exponent) or power_of_ten(exponent)


def power_of_ten(exponent: int) -> str:
    """10 to a power, in text."""
    return "10" + str(exponent).translate(_SUPERSCRIPTS)
