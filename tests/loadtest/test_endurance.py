"""The predictor under three times its capacity, and for a long time (fault catalogue 25 and 58)."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import linear_regression
from typing import TypeVar

import psutil
import pytest

from tests.faults.conftest import Subject
from tests.faults.load import Tally, ask_grpc, ask_rest, clients
from tests.loadtest.conftest import TRUSTING, Loadtest
from tests.serving import running

pytestmark = pytest.mark.long
T = TypeVar("T")
WARM_SECONDS, SOAK_SECONDS, LOOK_SECONDS = 60.0, 600.0, 5.0
MIB_PER_MINUTE = 1.0


def test_25_three_times_the_capacity_leaves_goodput_and_refuses_the_rest_at_once(
    bundle: Path, tmp_path: Path, loadtest: Loadtest
) -> None:
    options = (
        "overload",
        "--user=json",
        "--set=rows=200",
        "--set=seconds=60",
        "--users=4000",
        TRUSTING,
        f"--bundle={bundle}",
    )
    with running("tabserve_predictor", f"--model_dir={bundle}", log=tmp_path / "log") as service:
        before = service.resident_bytes()
        run = loadtest(*options, f"--url={service.url}")
        grown = (service.resident_bytes() - before) / 2**20
    print(run.text, f"grown by {grown:.0f} MiB", sep="\n")

    assert run.document.verdict.value == "PASS"
    assert run.section.figures["refused_share"] > 0.2
    assert grown < 64


def test_58_a_long_run_grows_neither_memory_nor_open_files(bundle: Path, tmp_path: Path) -> None:
    with running("tabserve_predictor", f"--model_dir={bundle}", log=tmp_path / "log") as service:
        subject, tally, process = Subject(service), Tally(), psutil.Process(service.process.pid)
        path, model = f"{subject.target.path}/infer", subject.target.model
        over_rest = partial(ask_rest, tally, [service.http_port], path, subject.payload)
        over_grpc = partial(ask_grpc, tally, [service.grpc_port], model, subject.payload)
        with clients(tally, over_rest, over_rest, over_grpc):
            looks(tally, WARM_SECONDS, process.num_fds)
            memory = looks(tally, SOAK_SECONDS, lambda: (process.memory_info().rss / 2**20, process.num_fds()))
    slope = linear_regression([at for at, _ in memory], [rss for _, (rss, _) in memory]).slope * 60
    files = [files for _, (_, files) in memory]
    print(f"{dict(tally.counts)}; {slope:+.3f} MiB a minute; {min(files)} to {max(files)} open files")

    assert tally.counts.keys() == {"200", "OK"}
    assert slope < MIB_PER_MINUTE
    assert max(files) <= files[0] + 2


def looks(tally: Tally, seconds: float, look: Callable[[], T]) -> list[tuple[float, T]]:
    """What is seen every few seconds while clients ask, with the time."""
    found, end = [], time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        found.append((now, look()))
        tally.stop.wait(LOOK_SECONDS)
    return found
