"""Find out how many threads the container may use."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available(cgroup: Path = CGROUP) -> int:
    """The whole CPUs in the container's quota (cgroup v2 or v1) and affinity, at least one.

    A quota of 1500m gives 1: more threads than CPUs are throttled, and the slowest of them sets the request's latency.
    """
    affinity = len(os.sched_getaffinity(0))
    quota = _quota_v2(cgroup / "cpu.max") or _quota_v1(cgroup / "cpu")
    return max(1, min(affinity, int(quota or affinity)))


def _quota_v2(file: Path) -> float | None:
    if not file.is_file():
        return None
    quota, _, period = file.read_text().partition(" ")
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(folder: Path) -> float | None:
    file = folder / "cpu.cfs_quota_us"
    if not file.is_file():
        return None
    quota = int(file.read_text())
    return quota / int((folder / "cpu.cfs_period_us").read_text()) if quota > 0 else None
