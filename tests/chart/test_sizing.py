"""The tables of docs/operations.md on sizing, cost and many models are what the chart and measurements make them."""

from __future__ import annotations

import pytest

from benchmarks.footprints import Footprint, Process
from tests.chart import sizing
from tests.chart.helm import program, rendered
from tests.chart.sizing import COLLOCATED, KNATIVE, PAGE, Workload, workloads

MODEL = Footprint("m", 1.0, 1000.0, transformer=Process(40, 60, cpu=400), predictor=Process(80, 110, cpu=1000))


def test_the_tables_are_those_of_the_chart_and_the_measurements() -> None:
    assert PAGE.read_text() == sizing.written(PAGE.read_text()), "run `make sizing`"


def test_workloads_are_what_the_chart_renders() -> None:
    assert sizing.default() == {
        "predictor": Workload(2, 0.25, 256, ("predictor",)),
        "transformer": Workload(2, 0.25, 128, ("transformer",)),
    }
    assert workloads(COLLOCATED) == {"predictor": Workload(2, 0.5, 384, ("predictor", "transformer"))}
    assert workloads({**KNATIVE, "knative": {"minReplicas": 0}})["predictor"].pods == 0


@pytest.mark.parametrize(("rate", "pods"), [(100, [2, 2]), (1_000, [2, 5]), (10_000, [20, 50])])
def test_pods_use_the_autoscalers_share_of_what_they_ask_for(rate: float, pods: list[int]) -> None:
    assert [count for _, count in sizing.both(MODEL, rate)] == pods


def test_a_million_decisions_cost_what_their_pods_ask_for() -> None:
    cores, gib = (2 + 5) * 0.25, (2 * 128 + 5 * 256) / 1024
    hours = 1e6 / (1_000 * 3600)

    assert sizing.per_million(MODEL, 1_000) == pytest.approx(hours * (cores * sizing.CORE_HOUR + gib * sizing.GIB_HOUR))


def test_an_image_tag_that_is_written_out_keeps_the_release() -> None:
    """As the upgrade notes have it."""
    version = rendered({}, program())[0]["metadata"]["labels"]["app.kubernetes.io/version"]
    tags = {name: {"image": {"tag": version}} for name in ("predictor", "transformer")}
    releases = [
        item["metadata"]["annotations"]["tabserve/release"]
        for values in ({}, {"releases": {"a": tags}})
        for item in rendered(values, program())
        if item["kind"] == "InferenceService"
    ]

    assert len(releases) == 2
    assert len({*releases}) == 1
