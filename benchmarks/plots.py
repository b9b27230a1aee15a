"""Draw the plots as SVG: latency distribution, throughput by concurrency, cost by batch size, a soak."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from matplotlib.ticker import FuncFormatter

from benchmarks.results import CLOSED, HALF, Cell, Results, Sample, cpu, per_second
from benchmarks.roster import NOOP_HTTP

_SIZE = (9.0, 4.5)
_POINTS = 3
"""The least number of points in a line."""
_PLAIN = FuncFormatter(lambda value, _: f"{value:,.10g}")
_STEPS = 200
"""The number of quantile steps before the last one, which is 0.999."""


def write(results: Results, folder: Path) -> None:
    """Write each plot that the results have figures for."""
    for name, draw in _PLOTS.items():
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        axes.set_prop_cycle(cycler(linestyle=["-", "--"]) * rcParams["axes.prop_cycle"])  # more peers than colours
        draw(axes, results)
        if axes.has_data():
            axes.grid(alpha=0.3)
            if axes.lines:
                axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
            axes.spines[["top", "right"]].set_visible(False)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def _latency(axes: Axes, results: Results) -> None:
    for cell in _like(results, lambda cell: (cell.rows, cell.encoding, cell.connections) == (1, "json", 1)):
        rounds = [measured.quantiles[:_STEPS] for measured in results.measured(cell)]
        values = [median(quantile) * 1e3 for quantile in zip(*rounds, strict=True)]
        axes.plot(values, [step / _STEPS for step in range(_STEPS)], label=cell.peer)
    axes.set(xscale="log", xlabel="ms to the answer", ylabel="share of requests answered by then", ylim=(0, 1))
    axes.xaxis.set_major_formatter(_PLAIN)
    axes.set_title("Latency, 1 row a request, 1 connection (XGBoost, V2 JSON)")


def _concurrency(axes: Axes, results: Results) -> None:
    cells = _like(results, lambda cell: (cell.rows, cell.encoding) == (1, "json"))
    _lines(axes, cells, lambda cell: cell.connections, lambda cell: results.median(cell, per_second) or 0.0)
    axes.set(xlabel="connections", ylabel="requests a second, one core")
    axes.set_title("Throughput by concurrency, 1 row a request (XGBoost, V2 JSON)")


def _throughput(axes: Axes, results: Results) -> None:
    cells = _like(results, lambda cell: (cell.rows, cell.encoding, cell.connections) == (1, "json", 32))
    served = {cell.peer: results.median(cell, per_second) or 0.0 for cell in cells if cell.peer != NOOP_HTTP.name}
    if served:
        names = sorted(served, key=lambda name: served[name])
        drawn = axes.barh(names, [served[name] for name in names])
        axes.bar_label(drawn, fmt="{:,.0f}", padding=4)
    axes.set(xlabel="requests a second, one core")
    axes.set_title("Throughput, 1 row a request, 32 connections (XGBoost, V2 JSON)")
    axes.xaxis.set_major_formatter(_PLAIN)


def _batch_size(axes: Axes, results: Results) -> None:
    cells = _like(results, lambda cell: (cell.encoding, cell.connections) == ("json", 1))
    _lines(axes, cells, lambda cell: cell.rows, lambda cell: (results.median(cell, cpu) or 0.0) / cell.rows * 1e6)
    axes.set(xlabel="rows a request", ylabel="µs of the server's CPU a row")
    axes.set_title("Cost by batch size, 1 connection (XGBoost, V2 JSON)")


def _soak(axes: Axes, results: Results) -> None:
    samples = [each for each in results.samples if each.cell.load == HALF]
    for title, what in _GROWS.items():
        values = [what(sample) for sample in samples]
        if len(values) >= _POINTS:
            axes.plot([value / median(values[:_POINTS]) for value in values], label=title)
    axes.set(xlabel="minutes", ylabel=f"by the median of the first {_POINTS} minutes", ylim=(0, None))
    axes.set_title("An hour at half capacity, 1 row a request (XGBoost, V2 JSON)")


_GROWS: dict[str, Callable[[Sample], float]] = {
    "memory": lambda sample: median(sample.resident),
    "CPU time for a request": lambda sample: sample.measured.server_seconds,
    "p99": lambda sample: sample.measured.p99,
}


def _like(results: Results, wanted: Callable[[Cell], bool]) -> list[Cell]:
    return [cell for cell in results.cells() if cell.model == "xgboost" and cell.load == CLOSED and wanted(cell)]


def _lines(axes: Axes, cells: list[Cell], x: Callable[[Cell], int], y: Callable[[Cell], float]) -> None:
    """Draw a line for each peer with enough points, and put the ticks of the x axis at the points."""
    shown: set[int] = set()
    axes.set(xscale="log", yscale="log")
    for peer in dict.fromkeys(cell.peer for cell in cells):
        of = sorted((cell for cell in cells if cell.peer == peer), key=x)
        if len(of) >= _POINTS:
            axes.plot([x(cell) for cell in of], [y(cell) for cell in of], marker="o", label=peer)
            shown.update(x(cell) for cell in of)
    axes.set_xticks(sorted(shown), [str(tick) for tick in sorted(shown)])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(_PLAIN)


_PLOTS: dict[str, Callable[[Axes, Results], None]] = {
    "latency": _latency,
    "throughput": _throughput,
    "concurrency": _concurrency,
    "batch_size": _batch_size,
    "soak": _soak,
}
