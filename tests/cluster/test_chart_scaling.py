"""Load adds replicas, all of which get requests, and the end of load removes them; from zero in Knative."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, connect, merged, released
from tests.cluster.load import Target, constant
from tests.cluster.shares import wait_for
from tests.cluster.testbed import api
from tests.cluster.testbed.places import KNATIVE_PORT, PROJECT, STANDARD_PORT
from tests.loadtest.cluster import load

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster")]
MODEL = "breast-cancer"
REPORTS = PROJECT / "build" / "cluster"


def idle(component: str, service: str) -> str:
    """The pods of a component that have answered no requests, by their own metrics, read through the API server."""
    labels = {"serving.kserve.io/inferenceservice": service, "component": component}
    return ", ".join(pod for pod in chart.pods(**labels) if not counted(pod))


def counted(pod: str) -> float:
    """The number of requests that a pod has answered successfully."""
    text = connect().request("GET", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8082/proxy/metrics")
    lines = [line for line in text.splitlines() if line.startswith("tabserve_requests_total")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.mark.long
def test_load_raises_replicas_that_all_work_and_its_end_lowers_them(bundle: Path) -> None:
    scaling = {"enabled": True, "minReplicas": 1, "maxReplicas": 3, "targetCPUUtilization": 60,
               "behavior": {"scaleDown": {"stabilizationWindowSeconds": 15}}}  # fmt: skip
    cpu = {"resources": {"requests": {"cpu": "100m"}}, "autoscaling": scaling}
    given = chart.values(MODEL, releases={"a": chart.on_volume(bundle)})
    predictors = {"serving.kserve.io/inferenceservice": "scaled-a", "component": "predictor"}
    watch = f"--watch={NAMESPACE}/serving.kserve.io/inferenceservice=scaled-a,component=predictor"
    gateway = (f"--url=http://127.0.0.1:{STANDARD_PORT}", f"--host=scaled-{NAMESPACE}.example.com")
    steps = ("--set=rate=4", "--set=factor=60", "--set=seconds=90")

    with released("scaled") as release, ThreadPoolExecutor(1) as background:
        release.apply(merged(given, {"predictor": cpu}))
        chart.wait_ready("scaled-a")
        running = background.submit(load, "autoscale", REPORTS, bundle, "autoscale", *gateway, watch, *steps)
        chart.wait_for_pods(3, predictors, seconds=300)
        api.wait("requests to all three", lambda: idle("predictor", "scaled-a"), 60, chart.explain)
        chart.wait_for_pods(1, predictors, seconds=300)
        (section,) = running.result().sections

    (timeline,) = section.tables
    print(*map("\t".join, (timeline.columns, *timeline.rows)), f"drawn in {REPORTS}/autoscale/report.html", sep="\n")
    assert {*section.outcomes} == {"ok"}
    assert timeline.rows[0][1] == "1"
    assert "3" in {row[1] for row in timeline.rows}


def test_the_first_request_wakes_a_model_from_zero(bundle: Path) -> None:
    zero = {"minReplicas": 0, "window": "6s", "features": chart.FEATURES}
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
