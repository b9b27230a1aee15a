"""How many threads a container may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tabserve_predictor.threads import available

CPUS = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("content", "expected"),
    [("100000 100000", 1), ("50000 100000", 1), ("max 100000", CPUS), (f"{CPUS * 400000} 100000", CPUS)],
)
def test_cgroup_v2(tmp_path: Path, content: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(content + "\n")

    assert available(tmp_path) == expected


@pytest.mark.parametrize(("quota", "expected"), [("100000", 1), ("150000", 1), ("-1", CPUS)])
def test_cgroup_v1(tmp_path: Path, quota: str, expected: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")

    assert available(tmp_path) == expected


def test_without_a_quota_the_affinity_counts(tmp_path: Path) -> None:
    assert available(tmp_path) == CPUS
