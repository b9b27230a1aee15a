"""Rows per second of CPU of `tabserve score`, which a stream and Spark are compared with."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from benchmarks import models
from tests.serving import ROOT

FEW = 100


def payments(rows: int, path: Path) -> None:
    """Write so many payments into a Parquet file, with times in microseconds."""
    frame = models.trained("payments").rows
    chosen = frame.iloc[[at % len(frame) for at in range(rows)]]
    chosen.to_parquet(path, index=False, coerce_timestamps="us")


def rate(bundle: Path, source: Path, rows: int) -> float:
    """Rows per second of CPU on a file of payments, without the command's start."""
    with tempfile.TemporaryDirectory(prefix="tabserve-bench-") as folder:
        payments(FEW, Path(folder) / "few.parquet")
        whole, few = (
            _used(bundle, each, Path(folder) / f"scored-{each.stem}") for each in (source, Path(folder) / "few.parquet")
        )
    return (rows - FEW) / (whole - few)


def _used(bundle: Path, source: Path, target: Path) -> float:
    """CPU seconds of the command."""
    command = [sys.executable, "-P", "-m", "tabserve.cli", "score", *map(str, (bundle, source, target))]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def cpu(process: psutil.Process) -> float:
    """CPU seconds of a process so far, 0 if it has ended."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
