from __future__ import annotations

from pathlib import Path

from benchmarks import plots
from benchmarks.results import HALF, Cell, Results, Sample
from tests.benchmarks.test_results import measurement


def test_each_plot_needs_its_figures(tmp_path: Path) -> None:
    found = Results({})
    plots.write(found, tmp_path)
    assert list(tmp_path.iterdir()) == []
    for rows, connections in ((1, 1), (1, 8), (1, 32), (16, 1), (64, 1)):
        cell = Cell("tabserve", "xgboost", rows, "json", connections)
        found.samples += [Sample(cell, number, measurement(1000)) for number in range(2)]
    plots.write(found, tmp_path)
    drawn = {"latency.svg", "throughput.svg", "concurrency.svg", "batch_size.svg"}
    assert {file.name for file in tmp_path.iterdir()} == drawn
    assert "tabserve" in (tmp_path / "latency.svg").read_text()


def test_a_soak_is_drawn_by_its_minutes(tmp_path: Path) -> None:
    cell = Cell("tabserve", "xgboost", 1, "json", 64, HALF)
    found = Results({}, [Sample(cell, 0, measurement(1000), resident=[100, 101]) for _ in range(4)])
    plots.write(found, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["soak.svg"]
