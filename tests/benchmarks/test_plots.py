from __future__ import annotations

from pathlib import Path

from benchmarks import plots
from benchmarks.results import Cell, Results, Sample
from tests.benchmarks.test_results import measurement


def test_each_plot_needs_its_figures(tmp_path: Path) -> None:
    found = Results({})
    plots.write(found, tmp_path)
    assert list(tmp_path.iterdir()) == []
    for rows, connections in ((1, 1), (1, 8), (1, 32), (16, 1), (64, 1)):
        cell = Cell("tabserve", "xgboost", rows, "json", connections)
        found.samples += [Sample(cell, number, measurement(1000)) for number in range(2)]
    plots.write(found, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"latency.svg", "concurrency.svg", "batch_size.svg"}
    assert "tabserve" in (tmp_path / "latency.svg").read_text()
