"""Floods against the pods of a release with the chart's limits, beside a client that goes on asking.

The attacker is in the network namespace of the pod, on one core, so that no gateway stands before it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from statistics import quantiles

import psutil
import pytest

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tabserve.inference.grpc.tuning import LISTENERS
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, released
from tests.cluster.load import Target, constant
from tests.cluster.testbed import api
from tests.cluster.testbed.places import PROJECT, STANDARD_PORT
from tests.faults.floods import FLOODS

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.usefixtures("cluster", "testbed")]
MODEL, SLOT = "breast-cancer", "floods-a"
SERVICES = ("predictor", "transformer")
MIB = 2**20
GROWN, AGAIN = 64 * MIB, 16 * MIB
"""How much more resident memory than at the start one flood may leave behind, and five more than that one."""
KEPT_BY_LISTENER = {"continuations": 10 * MIB}
"""What gRPC keeps of a listener's last broken connection, until the listener gets another (grpcio 1.82)."""
OTHERS_P99_SECONDS = 1.0
CALM_SECONDS = 90


@pytest.fixture(scope="module")
def target(bundle: Path) -> Generator[Target]:
    """A release with one pod of each service, and the chart's limits but for the disk."""
    images = {name: {"image": {"repository": f"dev.local/tabserve-{name}", "tag": "dev"}} for name in SERVICES}
    pods = chart.merged(chart.NO_DISK, {"autoscaling": {"enabled": False}, "replicas": 1})
    given = {"modelName": MODEL, "pods": pods, "releases": {"a": chart.on_volume(bundle)}, **images}
    record = expected.record(bundles.load(bundle), 0)
    with released("floods") as release:
        release.apply(given)
        chart.wait_ready(SLOT)
        yield Target(f"127.0.0.1:{STANDARD_PORT}", f"floods-{NAMESPACE}.example.com", MODEL, record)


def process(service: str) -> psutil.Process:
    """The process of the one pod of a service."""
    owned = (one for one in psutil.process_iter(["cmdline"]) if f"tabserve_{service}" in (one.info["cmdline"] or ()))
    (found,) = (one for one in owned if SLOT in one.environ().get("HOSTNAME", ""))
    return found


def restarts() -> int:
    """How often the containers of the release were started again."""
    states = (
        pod["status"]["containerStatuses"]
        for pod in chart.staying(**{"serving.kserve.io/inferenceservice": "floods-a"})
    )
    return sum(state["restartCount"] for each in states for state in each)


def flood(name: str, victim: psutil.Process) -> None:
    """Run a flood to its end, in the network namespace of its victim."""
    options = dict(one.removeprefix("--").split("=", 1) for one in victim.cmdline() if one.startswith("--"))
    within = ["nsenter", "-t", str(victim.pid), "-n", "taskset", "-c", "1"]
    attack = [sys.executable, "-m", "tests.faults.floods", name, options["http_port"], options["grpc_port"], MODEL]
    subprocess.run([*within, *attack], cwd=PROJECT, check=True, timeout=300)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_neither_ends_a_pod_nor_keeps_its_memory(target: Target, service: str, name: str) -> None:
    victim = process(service)
    with constant(target, rest=1) as calm:
        api.wait("answers", lambda: "" if len(calm.answers) > 100 else "few", 60, chart.explain)
    start = victim.memory_info().rss
    left: list[int] = []
    with constant(target, rest=1) as seen:
        for _ in range(6):
            flood(name, victim)
            left.append(settled(victim, start + GROWN))
    seconds = [answer.seconds for answer in seen.answers]
    p99 = quantiles(seconds, n=100)[98]
    print(f"{service}, {name}: {len(seconds)} other requests, p99 {p99 * 1e3:.0f} ms; "
          f"{start / MIB:.0f} MiB before, {[round(one / MIB) for one in left]} after each flood")  # fmt: skip
    assert restarts() == 0
    assert seen.failures() == []
    assert p99 < OTHERS_P99_SECONDS
    assert left[0] - start <= GROWN
    assert left[-1] - left[0] <= AGAIN + LISTENERS * KEPT_BY_LISTENER.get(name, 0)


def settled(victim: psutil.Process, wanted: int) -> int:
    """The resident memory of a process once it is no more than wanted, or after a while."""
    until = time.monotonic() + CALM_SECONDS
    while (found := victim.memory_info().rss) > wanted and time.monotonic() < until:
        time.sleep(0.5)
    return found
