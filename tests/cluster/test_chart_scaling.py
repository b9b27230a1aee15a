"""Load brings replicas, every one of them gets requests, and the end of load takes them away; from zero in Knative."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

import pytest

from tabserve import bundle as bundles
from tabserve import expected
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, connect, merged, released
from tests.cluster.load import Answer, Seen, Target, constant
from tests.cluster.shares import wait_for
from tests.cluster.testbed import api
from tests.cluster.testbed.places import KNATIVE_PORT, STANDARD_PORT

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster")]
MODEL = "breast-cancer"
SAMPLE_SECONDS = 5.0
FEATURES = ["multi-container-probing", "kubernetes.podspec-securitycontext"]


class Sample(NamedTuple):
    """A line of the timeline: seconds since the start, ready pods, and what was answered since the line before."""

    seconds: float
    replicas: int
    per_second: float
    p99_ms: float
    failed: int


@contextmanager
def timeline(seen: Seen, **labels: str) -> Generator[list[Sample]]:
    """A sample of a load and of the pods with these labels every few seconds, until the block is left."""
    samples: list[Sample] = []
    stopped = threading.Event()
    began = time.monotonic()

    def watch() -> None:
        counted = 0
        while not stopped.wait(SAMPLE_SECONDS):
            answers = seen.answers[counted:]
            counted += len(answers)
            samples.append(sample(time.monotonic() - began, len(chart.ready_pods(**labels)), answers))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield samples
    finally:
        stopped.set()
        watcher.join()


def sample(seconds: float, replicas: int, answers: list[Answer]) -> Sample:
    """A line of the timeline."""
    times = [answer.seconds * 1000 for answer in answers]
    p99 = quantiles(times, n=100)[98] if len(times) > 1 else 0.0
    return Sample(seconds, replicas, len(answers) / SAMPLE_SECONDS, p99, sum(not answer.good for answer in answers))


def wait_for_pods(count: int, **labels: str) -> None:
    """Until so many pods with these labels are Ready."""
    api.wait(f"{count} pods", lambda: "" if len(chart.ready_pods(**labels)) == count else "not", 300, chart.explain)


def report(title: str, samples: list[Sample]) -> str:
    """A timeline as a table, with the replicas and the rate as bars."""
    lines = [f"{title}\n{'s':>6} {'pods':>4} {'req/s':>6} {'p99 ms':>7} {'failed':>6}"]
    lines += [
        f"{one.seconds:6.0f} {one.replicas:4} {one.per_second:6.1f} {one.p99_ms:7.0f} {one.failed:6}"
        f"  {'#' * one.replicas:8} {'.' * round(one.per_second / 4)}"
        for one in samples
    ]
    return "\n".join(lines)


def requests_of(component: str, service: str) -> dict[str, float]:
    """Requests each pod of a component has counted, by its own metrics, read through the API server."""
    labels = {"serving.kserve.io/inferenceservice": service, "component": component}
    return {pod: counted(pod) for pod in chart.pods(**labels)}


def counted(pod: str) -> float:
    """The requests a pod has answered with success."""
    text = connect().request("GET", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/metrics")
    lines = [line for line in text.splitlines() if line.startswith("tabserve_requests_total")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.mark.long
def test_load_raises_replicas_that_all_work_and_its_end_lowers_them(bundle: Path) -> None:
    scaling = {"enabled": True, "minReplicas": 1, "maxReplicas": 3, "targetCPUUtilization": 60,
               "behavior": {"scaleDown": {"stabilizationWindowSeconds": 15}}}  # fmt: skip
    cpu = {"resources": {"requests": {"cpu": "100m"}}, "autoscaling": scaling}
    given = chart.values(MODEL, releases={"a": chart.on_volume(bundle)})
    record = expected.record(bundles.load(bundle), 0)
    predictors = {"serving.kserve.io/inferenceservice": "scaled-a", "component": "predictor"}
    target = Target(f"127.0.0.1:{STANDARD_PORT}", f"scaled-{NAMESPACE}.example.com", MODEL, record)
    with released("scaled") as release:
        release.apply(merged(given, {"predictor": cpu}))
        chart.wait_ready("scaled-a")
        with constant(target, rest=1, per_second=1) as seen, timeline(seen, **predictors) as samples:
            with constant(target, rest=6, per_second=50) as pressure:
                api.wait(
                    "three pods",
                    lambda: "" if len(chart.ready_pods(**predictors)) == 3 else "fewer",
                    240,
                    chart.explain,
                )
                wait_for(pressure, 1_000)
                shares = requests_of("predictor", "scaled-a")
            wait_for_pods(1, **predictors)

    print(report("Standard mode, HPA on CPU", samples), shares)
    assert seen.failures() + pressure.failures() == []
    assert len(shares) == 3
    assert all(count > 0 for count in shares.values())


def test_the_first_request_wakes_a_model_from_zero(bundle: Path) -> None:
    zero = {"minReplicas": 0, "window": "6s", "features": FEATURES}
    given = chart.values(MODEL, mode="Knative", releases={"a": chart.on_volume(bundle)}, knative=zero)
    pods = {"serving.kserve.io/inferenceservice": "zero"}
    record = expected.record(bundles.load(bundle), 0)
    target = Target(f"127.0.0.1:{KNATIVE_PORT}", f"zero-predictor.{NAMESPACE}.example.com", MODEL, record)
    with released("zero") as release:
        release.apply(merged(given, {"transformer": {"placement": "collocated"}}))
        chart.wait_ready("zero")
        api.wait("no pod", lambda: ", ".join(chart.pods(**pods)), 180, chart.explain)
        with constant(target, rest=4, per_second=2) as seen:
            wait_for(seen, 40)

    cold = max(answer.seconds for answer in seen.answers)
    print(
        f"Knative from zero: the first request was answered after {seen.answers[0].seconds:.1f} s, at most {cold:.1f} s"
    )
    assert seen.failures() == []
