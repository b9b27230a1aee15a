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
    """Write so many payments into a file: Parquet, with times in microseconds, or JSON lines, by its ending."""
    frame = models.trained("payments").rows
    chosen = frame.iloc[[at % len(frame) for at in range(rows)]]
    if path.suffix == ".jsonl":
        chosen.to_json(path, orient="records", lines=True)
    else:
        chosen.to_parquet(path, index=False, coerce_timestamps="us")


def rate(bundle: Path, source: Path, rows: int) -> float:
    """Rows per second of CPU on a file of payments, without the command's start."""
    with tempfile.TemporaryDirectory(prefix="tabserve-bench-") as folder:
        start = Path(folder) / f"few{source.suffix}"
        payments(FEW, start)
        whole, few = (_used(bundle, each, Path(folder) / f"scored-{each.stem}") for each in (source, start))
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
