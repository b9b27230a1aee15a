"""The predictor under three times its capacity, and for a long time (fault catalogue 25 and 58)."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import linear_regression, mean
from typing import TypeVar

import psutil
import pytest

from benchmarks import load, models, roster, servers
from benchmarks.load import Load
from benchmarks.payloads import payloads
from tests.faults.conftest import Subject
from tests.faults.load import Tally, ask_grpc, ask_rest, clients
from tests.serving import running

pytestmark = pytest.mark.long
T = TypeVar("T")
OVERLOAD_ROWS, OVERLOAD_CONNECTIONS, OVERLOAD_SECONDS = 256, 1024, 60.0
CLIENTS, CAPACITY_SECONDS = 32, 5.0
MEMORY_SECONDS = 10.0
"""How long the service may take to give memory back."""
GROWN_MIB = 16.0
WARM_SECONDS, SOAK_SECONDS, LOOK_SECONDS = 60.0, 600.0, 5.0
MIB_PER_MINUTE = 1.0


def test_25_three_times_the_capacity_leaves_goodput_and_the_rest_is_refused(tmp_path: Path) -> None:
    """A refusal takes PATIENCE_SECONDS of the admission, and not 50 ms as in the catalogue: one that came at once, and
    whose client asked again at once, would cost others their answers.
    """
    asked = payloads(models.trained("xgboost"), OVERLOAD_ROWS, "json")
    answers, log = tmp_path / "answers", tmp_path / "log"
    log.touch()
    with servers.running(roster.TABSERVE, asked, tmp_path / "none", log) as server:
        load.collect(server, roster.TABSERVE, asked, answers)
        measure = partial(load.measure, server, asked, answers)
        before = measure(Load(CLIENTS, CAPACITY_SECONDS))
        held = server.resident_bytes()
        over = measure(Load(OVERLOAD_CONNECTIONS, OVERLOAD_SECONDS, 3 * before.per_second))
        after = measure(Load(CLIENTS, CAPACITY_SECONDS))
        grown = least(lambda: (server.resident_bytes() - held) / 2**20, MEMORY_SECONDS)
    goodput = over.per_second / mean((before.per_second, after.per_second))
    late = over.refused_quantiles[198]
    print(
        f"capacity {before.per_second:.0f} and {after.per_second:.0f} a second; goodput {goodput:.3f} of it; "
        f"p99 {over.p99:.3f} s; {over.refused / over.seconds:.0f} a second refused, p99 {late:.3f} s; "
        f"{over.unsent} not sent; {grown:+.1f} MiB"
    )

    assert goodput >= 0.9
    assert over.refused > 0
    assert after.per_second >= 0.9 * before.per_second
    assert grown < GROWN_MIB


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


def least(look: Callable[[], float], seconds: float) -> float:
    """The least of what is seen in this time."""
    end, found = time.monotonic() + seconds, look()
    while time.monotonic() < end:
        found = min(found, look())
    return found


def looks(tally: Tally, seconds: float, look: Callable[[], T]) -> list[tuple[float, T]]:
    """What is seen every few seconds while clients ask, with the time."""
    found, end = [], time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        found.append((now, look()))
        tally.stop.wait(LOOK_SECONDS)
    return found
