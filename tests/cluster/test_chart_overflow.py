"""More open requests than Knative's gateway allows: its 503s are told from the services' own (fault catalogue 35)."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, released
from tests.cluster.testbed import api
from tests.cluster.testbed.places import KNATIVE_PORT
from tests.loadtest.cluster import KNATIVE, MODEL, NAME, values
from tests.loadtest.conftest import TRUSTING, run_loadtest

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.usefixtures("cluster")]
RATE, SECONDS = 50, 30
OPEN = 2_500
"""More requests than Envoy has under way and waiting for a connection, 1,024 each by default."""
HELD_SECONDS = 6.0
BUSY_SECONDS = 0.3


def test_35_a_gateway_s_overflow_is_told_in_the_report(bundle: Path, tmp_path: Path) -> None:
    load = (TRUSTING, f"--bundle={bundle}", f"--set=rate={RATE}", f"--set=seconds={SECONDS}")
    with released(NAME) as release, ThreadPoolExecutor(1) as pool:
        release.apply(values(bundle, mode="Knative", knative={"features": chart.FEATURES},
                             transformer={"placement": "collocated"}))  # fmt: skip
        chart.wait_ready(NAME)
        service = transformer()
        idle = service.cpu_times().user
        running = pool.submit(run_loadtest, tmp_path / "report", "server", *KNATIVE, *load)
        api.wait("is asked", lambda: "" if service.cpu_times().user - idle > BUSY_SECONDS else "idle", 60,
                 chart.explain)  # fmt: skip
        hold_open()
        run = running.result()
    print(run.text)
    assert any(text.startswith("refused: 503") and "overflow" in text for text in run.section.errors)
    assert run.section.outcomes["ok"] > RATE


def transformer() -> psutil.Process:
    """The process of the one transformer of the release."""
    owned = (one for one in psutil.process_iter(["cmdline"]) if "tabserve_transformer" in (one.info["cmdline"] or ()))
    (found,) = (one for one in owned if one.environ().get("HOSTNAME", "").startswith(f"{NAME}-predictor"))
    return found


def hold_open() -> None:
    """Send the heads of many requests to the gateway, and no bodies for a while."""
    head = (
        f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: {NAME}-predictor.{NAMESPACE}.example.com\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    )
    with ExitStack() as stack:
        for _ in range(OPEN):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", KNATIVE_PORT), timeout=10))
            one.sendall(head.encode())
        threading.Event().wait(HELD_SECONDS)
