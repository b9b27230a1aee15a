"""Predictors that stand still or are killed, under load: who waits, what the logs and Prometheus say, and the runbook.

The stops come from the machine, by a process's id, as from a debugger or a disk that hangs.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tabserve.inference.logs import QUIET_SECONDS
from tests.chart.test_alerts import rules
from tests.chart.test_dashboard import QUERIES, filled
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, connect, merged, released
from tests.cluster.load import Seen, Target, constant
from tests.cluster.test_chart_faults import restarts
from tests.cluster.testbed import api
from tests.cluster.testbed.build import KUBECTL, WHEELS
from tests.cluster.testbed.places import CONTAINERD_SOCKET, PROJECT, PROMETHEUS_PORT, STANDARD_PORT
from tests.cluster.testbed.process import run

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.usefixtures("cluster", "testbed")]
MODEL, NAME = "breast-cancer", "hung"
PREDICTORS, TRANSFORMERS = (
    {"serving.kserve.io/inferenceservice": f"{NAME}-a", "component": component}
    for component in ("predictor", "transformer")
)
TWO: dict[str, Any] = {"predictor": {"replicas": 2}, "transformer": {"replicas": 2}}
PODS = f'namespace="{NAMESPACE}",pod=~"{NAME}-[ab]-(predictor|transformer)-.+"'
VARIABLES = {"all": PODS, "entry": f'namespace="{NAMESPACE}",pod=~"{NAME}-[ab]-transformer-.+",arm!="shadow"'}
PANELS = ("Requests by status", "Errors by status and pod", "Waiting for the predictor", "Predictors that are ready")
SECRET, SECRET_ID = 12.3456789, "secret-4711"
FALLS_SECONDS, SLACK_SECONDS = 2.0, 1.0
WAITS_SECONDS = 0.5
"""Longer than this a request waits for a predictor that stands still; others take milliseconds."""
CLIENTS, PER_SECOND = 8, 10
GONE = {signal.SIGSTOP: "address_hung", signal.SIGKILL: "address_lost"}
LEAST = {signal.SIGSTOP: {1.0}, signal.SIGKILL: {1.0, 2.0}}
"""The predictors that are ready meanwhile; a container that was killed is soon started again."""
Pod = api.Object


@pytest.fixture(scope="module")
def target(bundle: Path) -> Generator[Target]:
    """A model with two pods of each service; a value and the id of its requests are found again wherever they leak."""
    with released(NAME) as release:
        release.apply(merged(chart.values(MODEL, releases={"a": chart.on_volume(bundle)}), TWO))
        chart.wait_ready(f"{NAME}-a")
        record = expected.record(bundles.load(bundle), 0) | {"radius": SECRET}
        gateway = f"127.0.0.1:{STANDARD_PORT}"
        found = Target(gateway, f"{NAME}-{NAMESPACE}.example.com", MODEL, record, {"x-request-id": SECRET_ID})
        api.wait("the route", lambda: "" if found.once().good else found.once().status, 60, chart.explain)
        yield found


def process(pod: Pod) -> int:
    """The id that the process of a pod's service has on this machine."""
    (state,) = pod["status"]["containerStatuses"]
    container = state["containerID"].removeprefix("containerd://")
    listed = run("ctr", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", "tasks", "list")
    (found,) = (line.split()[1] for line in listed.splitlines() if line.startswith(container))
    return int(found)


@contextmanager
def ended(pods: Sequence[Pod], number: signal.Signals) -> Generator[None]:
    """Stop or kill the processes of pods; those that are still stopped go on when the block is left."""
    found = [process(pod) for pod in pods]
    for each in found:
        os.kill(each, number)
    try:
        yield
    finally:
        for each in found:
            with suppress(ProcessLookupError):  # it was killed, or has been restarted
                os.kill(each, signal.SIGCONT)


def names(pods: Sequence[Pod]) -> list[str]:
    return [pod["metadata"]["name"] for pod in pods]


@dataclass
class Said:
    """What pods have logged since a time, of which every line is a JSON object."""

    pods: Sequence[str]
    since: float = field(default_factory=time.time)

    def lines(self) -> list[dict[str, Any]]:
        """The lines of the time, each with its pod and its seconds since then."""
        return [line for pod in self.pods for line in self._of(pod) if line["after"] >= 0]

    def _of(self, pod: str) -> list[dict[str, Any]]:
        text = connect().logs(NAMESPACE, pod, "kserve-container", 10_000)
        assert str(SECRET) not in text
        assert SECRET_ID not in text
        found = [json.loads(line) for line in text.splitlines()]
        return [{**line, "pod": pod, "after": datetime.fromisoformat(line["time"]).timestamp() - self.since}
                for line in found]  # fmt: skip

    def wait_for(self, event: str, address: str = "") -> None:
        """Wait until every pod has told an event, of an address if one is given."""

        def silent() -> str:
            told = {
                line["pod"] for line in self.lines() if line["event"] == event and address in line.get("address", "")
            }
            return ", ".join({*self.pods} - told)

        api.wait(f"{event} {address}", silent, 120, chart.explain)

    def assert_few(self) -> None:
        """Assert that no pod told a cause more often than once in ten seconds."""
        counts = Counter((line["pod"], line["event"], line.get("address")) for line in self.lines())
        assert counts
        assert max(counts.values()) <= 1 + (time.time() - self.since) / QUIET_SECONDS, counts

    def print(self) -> None:
        """Print what was told, for the page."""
        for line in sorted(self.lines(), key=lambda each: each["after"]):
            print(
                f"  {line['after']:6.2f} s  {line['pod'][:18]}  {line['level']:7}  {line['event']}: {line['message']}"
            )


@contextmanager
def readiness(pods: Sequence[Pod]) -> Generator[dict[str, list[tuple[float, int]]]]:
    """The changes of pods' readiness as their probe sees it: when each was seen first, by pod."""
    changes: dict[str, list[tuple[float, int]]] = {name: [] for name in names(pods)}
    over = threading.Event()

    def watch(pod: Pod) -> None:
        seen = changes[pod["metadata"]["name"]]
        while not over.wait(0.02):
            status = ready(pod["status"]["podIP"])
            if not seen or seen[-1][1] != status:
                seen.append((time.monotonic(), status))

    threads = [threading.Thread(target=watch, args=(pod,)) for pod in pods]
    for thread in threads:
        thread.start()
    try:
        yield changes
    finally:
        over.set()
        for thread in threads:
            thread.join()


def ready(address: str) -> int:
    """The status of a pod's readiness at its admin port."""
    connection = HTTPConnection(address, 8082, timeout=10)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status
    finally:
        connection.close()


def fell(changes: dict[str, list[tuple[float, int]]], since: float) -> list[float]:
    """The seconds after which each pod was first not ready."""
    return [
        next((at - since for at, status in seen if status != 200 and at > since), -1.0) for seen in changes.values()
    ]


def result(query: str) -> dict[str, float]:
    """What Prometheus finds now, by labels."""
    asked = urllib.parse.urlencode({"query": query})
    with urllib.request.urlopen(f"http://127.0.0.1:{PROMETHEUS_PORT}/api/v1/query?{asked}", timeout=10) as answer:
        found = json.load(answer)["data"]["result"]
    return {" ".join(each["metric"].values()): float(each["value"][1]) for each in found}


def shown(panel: str) -> dict[str, float]:
    """What a panel of the dashboard shows now; it has one query."""
    (query,) = QUERIES[panel]
    return result(filled(query, VARIABLES))


def wait_shown(panel: str, holds: Callable[[dict[str, float]], bool]) -> float:
    """Wait until what a panel shows is right; returns the seconds."""
    began = time.monotonic()
    api.wait(panel, lambda: "" if holds(shown(panel)) else str(shown(panel)), 60, chart.explain)
    return time.monotonic() - began


def print_panels() -> None:
    for panel in PANELS:
        values = ", ".join(f"{labels or 'all'} {value:.3g}" for labels, value in sorted(shown(panel).items()))
        print(f"  {panel}: {values or 'nothing'}")


def runbook(alert: str) -> str:
    """What the commands of an alert's entry print."""
    page = (PROJECT / "docs" / "operations.md").read_text()
    entry = page.partition(f"\n### {alert}\n")[2].partition("\n### ")[0]
    (commands,) = re.findall(r"^```sh\n(.*?)^```", entry, re.MULTILINE | re.DOTALL)
    folder = (WHEELS.folder / KUBECTL).parent
    kubectl = f'kubectl() {{ "{folder}/kubectl" -n {NAMESPACE} "$@"; }}\n'
    environment = {**os.environ, "KUBECONFIG": str(chart.kubeconfig())}
    done = subprocess.run(
        ["bash", "-c", kubectl + commands.replace("NAME", NAME)], env=environment, capture_output=True, text=True
    )
    return done.stdout + done.stderr


def wait_for(seen: Seen, requests: int) -> None:
    goal = len(seen.answers) + requests
    api.wait("answers", lambda: "" if len(seen.answers) >= goal else "too few", 180, chart.explain)


def told_of(seen: Seen, began: float, ended_at: float) -> tuple[int, list[float], Counter[str]]:
    """The requests under way in a time: how many, how long the slow ones waited, and how the others than 200 ended."""
    asked = [each for each in seen.answers if each.began < ended_at and each.began + each.seconds > began]
    waited = sorted(each.seconds for each in asked if each.seconds > WAITS_SECONDS)
    return len(asked), waited, Counter(each.status for each in asked if not each.good)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
def test_with_one_of_two_predictors_gone_the_other_answers(target: Target, number: signal.Signals) -> None:
    chart.wait_ready(f"{NAME}-a")
    wait_shown("Predictors that are ready", lambda found: {*found.values()} == {2.0})
    transformers = chart.staying(**TRANSFORMERS)
    gone, _ = chart.staying(**PREDICTORS)
    address = gone["status"]["podIP"]
    with (
        readiness(transformers) as changes,
        constant(target, rest=CLIENTS, per_second=PER_SECOND) as seen,
    ):
        wait_for(seen, 100)
        said, since = Said(names(transformers)), time.monotonic()
        with ended([gone], number):
            said.wait_for(GONE[number], address)
            known = time.monotonic()
            wait_for(seen, 15 * CLIENTS * PER_SECOND // 2)
            until = time.monotonic()
            least = {*shown("Predictors that are ready").values()}
            print_panels()
        said.wait_for("address_ready", address)
        back = time.monotonic()
        wait_for(seen, 100)
    count, waited, failed = told_of(seen, since, until)
    print(f"{number.name}: told after {known - since:.1f} s; of {count} requests in {until - since:.1f} s, "
          f"{len(waited)} waited ({[f'{each:.1f}' for each in waited]}); failed: {dict(failed)}; "
          f"ready again, and told, after {back - since:.1f} s")  # fmt: skip
    said.print()

    assert len(waited) <= CLIENTS + len(transformers) * (until - since)
    assert failed.keys() <= {"503", "504"}
    assert sum(failed.values()) <= len(waited) + CLIENTS
    assert fell(changes, since) == [-1.0, -1.0]
    assert "predictor_gone" not in {line["event"] for line in said.lines()}
    assert least <= LEAST[number]
    assert all(each.good for each in seen.answers[-50:])
    said.assert_few()


def test_when_all_predictors_stand_still_the_transformers_say_so_and_the_runbook_says_why(target: Target) -> None:
    (lost,) = [rule["expr"] for rule in rules({"fullnameOverride": NAME}) if rule["alert"] == "TabservePredictorLost"]
    chart.wait_ready(f"{NAME}-a")
    wait_shown("Predictors that are ready", lambda found: {*found.values()} == {2.0})
    transformers, predictors = chart.staying(**TRANSFORMERS), chart.staying(**PREDICTORS)
    assert result(lost) == {}
    with (
        readiness(transformers) as changes,
        constant(target, rest=CLIENTS, per_second=PER_SECOND) as seen,
    ):
        wait_for(seen, 100)
        said, since = Said(names(transformers)), time.monotonic()
        with ended(predictors, signal.SIGSTOP):
            said.wait_for("predictor_gone")
            alerted = wait_shown("Predictors that are ready", lambda found: {*found.values()} == {0.0})
            held = result(lost)
            api.wait("answers", lambda: "" if len(seen.failures()) >= CLIENTS else "few", 60, chart.explain)
            print_panels()
            printed = runbook("TabservePredictorLost")
            until = time.monotonic()
        said.wait_for("predictor_back")
        chart.wait_ready(f"{NAME}-a")
        api.wait(
            "answers again", lambda: "" if all(each.good for each in seen.answers[-20:]) else "none", 120, chart.explain
        )
        back = time.monotonic()
    wait_shown("Predictors that are ready", lambda found: {*found.values()} == {2.0})
    count, waited, failed = told_of(seen, since, until)
    falls = fell(changes, since)
    print(f"all stopped: not ready after {[f'{each:.2f}' for each in falls]} s; of {count} requests in "
          f"{until - since:.1f} s failed {dict(failed)}, {len(waited)} waited, at most "
          f"{max(waited, default=0):.1f} s; the graph fell {alerted:.1f} s "
          f"after the log's line; answers again after {back - since:.1f} s")  # fmt: skip
    said.print()
    print(printed)

    assert all(0 < each < FALLS_SECONDS + SLACK_SECONDS for each in falls)
    assert len(held) == len(transformers)
    assert failed.keys() <= {"503", "504"}
    assert all(f'"event": "{event}"' in printed for event in ("predictor_gone", "address_hung"))
    assert all(pod in printed for pod in names(predictors))
    assert result(lost) == {}
    said.assert_few()


def test_liveness_restarts_a_predictor_that_stands_still(target: Target) -> None:
    chart.wait_ready(f"{NAME}-a")
    before, (gone, _) = restarts(f"{NAME}-a"), chart.staying(**PREDICTORS)
    with constant(target, rest=CLIENTS, per_second=PER_SECOND) as seen:
        wait_for(seen, 100)
        since = time.monotonic()
        with ended([gone], signal.SIGSTOP):
            api.wait("a restart", lambda: "" if restarts(f"{NAME}-a") > before else "none", 180, chart.explain)
            restarted = time.monotonic()
            chart.wait_ready(f"{NAME}-a")
        back = time.monotonic()
        wait_for(seen, 100)
    count, waited, failed = told_of(seen, since, back)
    print(f"stopped for good: restarted after {restarted - since:.0f} s, ready again after {back - since:.0f} s; of "
          f"{count} requests {len(waited)} waited; failed: {dict(failed)}")  # fmt: skip

    assert len(waited) <= CLIENTS + len(chart.pods(**TRANSFORMERS)) * (back - since)
    assert failed.keys() <= {"503", "504"}
    assert all(each.good for each in seen.answers[-50:])
