"""The report's charts as inline SVG in the page's colours, so that they follow light and dark mode."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from tabserve_loadtest.document import Section

# Placeholders that matplotlib writes into the SVG, and the page's colours that replace them.
INK, FAINT, FIRST, SECOND, THIRD, BAD = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_COLOURS = {INK: "ink", FAINT: "faint", FIRST: "first", SECOND: "second", THIRD: "third", BAD: "bad"}
_SIZE = (5.2, 3.1)
_STYLE: Any = {  # matplotlib's stubs list every key it has
    "font.size": 9,
    "font.family": ["sans-serif"],
    "svg.fonttype": "none",
    "svg.hashsalt": "loadtest",
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.4,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
}


def charts(section: Section, prefix: str) -> list[str]:
    """A scenario's SVGs. prefix: the start of their ids, unique in the page."""
    drawn = [("Latency distribution", _distribution, bool(section.curve))]
    drawn += [("Latency over time", _latency, len(section.seconds) > 1)]
    drawn += [("Requests over time", _requests, len(section.seconds) > 1)]
    drawn += [("Replicas over time", _replicas, bool(section.replicas))]
    wanted = [(title, draw) for title, draw, there in drawn if there]
    return [_svg(section, title, draw, f"{prefix}-{number}") for number, (title, draw) in enumerate(wanted)]


def _svg(section: Section, title: str, draw: object, prefix: str) -> str:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        axes.set_title(title)
        draw(axes, section)  # type: ignore[operator]
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(file.getvalue(), f"{title}, {section.scenario}", prefix)


def _inline(svg: str, label: str, prefix: str) -> str:
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(
        r'<svg [^>]*viewBox="([^"]*)"[^>]*>',
        rf'<svg viewBox="\1" role="img" aria-label="{escape(label)}">',
        svg,
        count=1,
    )
    svg = svg.replace("xlink:href", "href")
    for colour, name in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg.strip()


def _distribution(axes: Axes, section: Section) -> None:
    """Plot latency over the share of requests that took no longer, on a scale where every nine has the same width."""
    nines = [(-math.log10(max(1 - share, 1e-9)), latency / 1000) for share, latency in section.curve if share < 1]
    axes.plot([x for x, _ in nines], [y for _, y in nines], color=FIRST, label="measured")
    for name, limit in section.limits.items():
        place = -math.log10(1 - float(name.removeprefix("p")) / 100)
        axes.plot([place], [limit], marker="v", color=BAD, linestyle="none", label=f"limit of {name}")
    ends = [x for x, _ in nines] + [1.0]
    ticks = [tick for tick in (0.0, 0.30103, 1.0, 2.0, 3.0, 4.0) if tick <= max(ends) + 0.05]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * (1 - 10**-x):.4g}"))
    axes.set_xlabel("share of requests (%)")
    _milliseconds(axes)
    axes.legend(loc="lower right")


def _latency(axes: Axes, section: Section) -> None:
    points = [point for point in section.seconds if point.p99]
    seconds = [point.second for point in points]
    axes.plot(seconds, [point.p50 / 1000 for point in points], color=FIRST, label="p50")
    axes.plot(seconds, [point.p99 / 1000 for point in points], color=SECOND, label="p99")
    for name, limit in section.limits.items():
        colour = {"p50": FIRST, "p99": SECOND}.get(name, BAD)
        axes.axhline(limit, color=colour, linewidth=1, linestyle=(0, (4, 3)), label=f"limit of {name}")
    _milliseconds(axes)
    _seconds(axes)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4)


def _requests(axes: Axes, section: Section) -> None:
    points = section.seconds
    series = {kind: [point.outcomes.get(kind, 0) for point in points] for kind in ("ok", "refused")}
    series["errors"] = [_errors(point.outcomes) for point in points]
    edges = [*(point.second for point in points), points[-1].second + 1]
    for (kind, counts), colour in zip(series.items(), (FIRST, THIRD, BAD), strict=True):
        if kind == "ok" or any(counts):
            axes.step(edges, [*counts, counts[-1]], where="post", color=colour, label=kind)
    _offered(axes, section)
    axes.set_ylabel("requests per second")
    axes.set_ylim(bottom=0)
    _seconds(axes)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4)


def _errors(outcomes: dict[str, int]) -> int:
    return sum(count for kind, count in outcomes.items() if kind not in ("ok", "refused"))


def _offered(axes: Axes, section: Section) -> None:
    times, rates, at = list[float](), list[float](), 0.0
    for segment in section.offered:
        times += [at, at + segment.seconds]
        rates += [segment.rate, segment.rate]
        at += segment.seconds
    if times:
        axes.plot(times, rates, color=INK, linewidth=1, linestyle=(0, (1, 2)), label="schedule")


def _replicas(axes: Axes, section: Section) -> None:
    end = max((point.second for point in section.seconds), default=0) + 1.0
    for (name, changes), colour in zip(section.replicas.items(), (FIRST, SECOND, THIRD, BAD), strict=False):
        times = [at for at, _ in changes] + [end]
        axes.step(times, [count for _, count in (*changes, changes[-1])], where="post", color=colour, label=name)
    axes.set_ylabel("ready replicas (count)")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _seconds(axes)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


def _seconds(axes: Axes) -> None:
    axes.set_xlabel("time since the start (s)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def _milliseconds(axes: Axes) -> None:
    """Make a logarithmic axis in ms, with ticks at 1, 2, 5 if it is short."""
    low, high = _range(axes)
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    steps: Sequence[int] = (1, 2, 5) if high / low < 300 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.set_ylabel("latency (ms)")


def _range(axes: Axes) -> tuple[float, float]:
    values = [float(y) for line in axes.get_lines() for y in np.asarray(line.get_ydata()) if y > 0]
    low, high = min(values, default=1.0), max(values, default=1.0)
    return low / 1.5, max(high * 1.5, low * 4)
