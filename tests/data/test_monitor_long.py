"""The monitor in earnest: a thousand years without a change, and ten million records."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tabserve.monitor import simulate, verdict
from tabserve.monitor.columns import Column
from tabserve.monitor.run import Subject
from tabserve.monitor.verdict import Rules, Tolerances
from tests.unit import monitored

pytestmark = pytest.mark.long
YEARS = 1_000


def columns() -> list[Column]:
    """Ten numbers of which half may be missing, three categories, the score and the decision."""
    edges, even = np.arange(21.0), [1_000] * 20
    numbers = [
        Column(f"n{at}", "feature", np.array([0, *even, 0, 4_000 * (at % 2)]), edges, may_miss=bool(at % 2))
        for at in range(10)
    ]
    values = tuple("abcdef")
    categories = [
        Column(f"c{at}", "feature", np.array([8_000, 5_000, 4_000, 2_000, 900, 100, 0]), values=values)
        for at in range(3)
    ]
    score = Column("score", "score", np.array([0, *([250] * 20), 0, 0]), edges)
    decision = Column("decision", "decision", np.array([100, 400, 4_500, 0]), values=("block", "review", "accept"))
    return [*numbers, *categories, score, decision]


@pytest.mark.parametrize("rows", [150, 5_000])
@pytest.mark.parametrize(
    ("alpha", "tolerances"), [(0.05, Tolerances()), (0.05, Tolerances(0, 0, 0)), (0.5, Tolerances(0, 0, 0))]
)
def test_a_thousand_years_without_a_change(rows: int, alpha: float, tolerances: Tolerances) -> None:
    checked, random = columns(), np.random.default_rng(rows)
    rules = Rules(alpha, tolerances, sum(map(verdict.checks_of, checked)))
    started, alarmed = time.perf_counter(), np.zeros(YEARS, bool)
    for column in checked:
        alarmed |= simulate.alarms(column, rules, rows, YEARS, random).days < simulate.DAYS
    seconds = time.perf_counter() - started
    print(
        f"\n{rows} rows a day, alpha {alpha}, {tolerances}: "
        f"an alarm in {alarmed.mean():.2%} of the years, {seconds:.0f} s"
    )

    assert alarmed.mean() <= alpha


@pytest.mark.parametrize("alpha", [0.05, 0.5])
def test_a_thousand_years_of_labels_without_a_change(alpha: float, tmp_path: Path) -> None:
    subject = Subject(monitored.bundle(tmp_path), alpha, Tolerances(0, 0, 0))
    random = np.random.default_rng(0)
    found = [simulate.errors(subject, 300, YEARS, random, 0.0)]
    found += [simulate.outcomes(subject, at, 300, YEARS, random, 0.0) for at in range(len(subject.names))]
    share = np.any([each.days < simulate.DAYS for each in found], axis=0).mean()
    print(f"\nlabels, alpha {alpha}, no tolerance: an alarm in {share:.2%} of the years")

    assert share <= alpha


def test_ten_million_records_take_less_than_two_gibibytes(tmp_path: Path) -> None:
    saved = monitored.bundle(tmp_path)
    frame = monitored.records(250_000, 1)
    monitored.log(tmp_path / "log", saved, frame, monitored.FIRST)
    (first,) = (tmp_path / "log").rglob("*.parquet")
    for at in range(1, 40):
        os.link(first, first.with_name(f"pod-{at + 1}.parquet"))
    monitored.labels(tmp_path / "labels.parquet", frame)
    command = [
        sys.executable,
        "-m",
        "tabserve.cli",
        "monitor",
        str(tmp_path / "log"),
        "--bundle",
        str(saved.path),
        "--json",
    ]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, "--labels", str(tmp_path / "labels.parquet")], capture_output=True, check=False, text=True
    )
    seconds = time.perf_counter() - started
    gibibytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"\n10,000,000 records with labels: {seconds:.0f} s, {gibibytes:.2f} GiB")

    assert json.loads(done.stdout)["records"] == 10_000_000, done.stderr
    assert gibibytes <= 2
