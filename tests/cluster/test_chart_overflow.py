"""More open requests than Knative's gateway allows: its 503s are told from the services' own (fault catalogue 35)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.cluster import chart
from tests.cluster.chart import released
from tests.cluster.testbed import api
from tests.loadtest.cluster import KNATIVE, NAME, values
from tests.loadtest.conftest import TRUSTING, Run, run_loadtest

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.usefixtures("cluster")]
RATE, SECONDS = 250, 30
STOPPED_SECONDS = 14.0
"""Longer than it takes to open 2,048 requests: as many as Envoy has under way and waiting, 1,024 each, by default."""
BUSY_SECONDS = 1.0


def test_35_a_gateway_s_overflow_is_told_in_the_report(bundle: Path, tmp_path: Path) -> None:
    load = (f"--bundle={bundle}", "--users=6000", "--timeout=25", f"--set=rate={RATE}", f"--set=seconds={SECONDS}")
    with released(NAME) as release, ThreadPoolExecutor(1) as pool:
        release.apply(values(bundle, mode="Knative", knative={"features": chart.FEATURES},
                             transformer={"placement": "collocated"}))  # fmt: skip
        chart.wait_ready(NAME)
        victim = transformer()
        idle = victim.cpu_times().user
        running = pool.submit(run_loadtest, tmp_path / "report", "server", *KNATIVE, TRUSTING, *load)
        api.wait("is busy", lambda: "" if victim.cpu_times().user - idle > BUSY_SECONDS else "idle", 60, chart.explain)
        stopped(victim)
        run: Run = running.result()
    print(run.text)
    refused = [text for text in run.section.errors if text.startswith("refused: 503")]
    assert any("reset reason: overflow" in text for text in refused)
    assert run.section.outcomes["refused"] > 100


def transformer() -> psutil.Process:
    """The process of the one transformer of the release."""
    owned = (one for one in psutil.process_iter(["cmdline"]) if "tabserve_transformer" in (one.info["cmdline"] or ()))
    (found,) = (one for one in owned if one.environ().get("HOSTNAME", "").startswith(f"{NAME}-predictor"))
    return found


def stopped(victim: psutil.Process) -> None:
    """Stop a process for a while, in which its clients' requests stay open."""
    victim.suspend()
    try:
        with pytest.raises(psutil.TimeoutExpired):
            victim.wait(STOPPED_SECONDS)
    finally:
        victim.resume()
