from __future__ import annotations

import math

import msgspec
import pytest

from benchmarks import load, report, targets
from benchmarks.load import Measurement, Usage
from benchmarks.results import (
    AGED,
    FRESH,
    HALF,
    OVERLOAD,
    QUARTER,
    Bare,
    Cell,
    Failure,
    Results,
    Sample,
    Start,
    cpu,
    least_disturbed,
    p99,
)
from benchmarks.servers import PeerError
from benchmarks.targets import Goal


def measurement(per_second: float, p50: float = 0.001, generator: float = 1.0, server: float = 9.5) -> Measurement:
    quantiles = [p50] * 202
    usage = Usage(generator=generator, server=server, cores=[server, generator])
    return Measurement(10.0, round(per_second * 10), 0, 0, 0, 0, "", quantiles, [], usage)


def results(**per_second: list[float]) -> Results:
    found = Results({"date": "today"})
    for peer, values in per_second.items():
        cell = Cell(peer.replace("_", "-"), "xgboost", 1, "json", 32)
        found.samples += [Sample(cell, number, measurement(value)) for number, value in enumerate(values)]
    return found


@pytest.mark.parametrize(
    ("target", "stretch", "got", "verdict"),
    [
        (6, 8, 9, "stretch"),
        (6, 8, 8, "stretch"),
        (6, 8, 6.5, "met"),
        (6, 8, 5.99, "missed"),
        (0.25, 0.2, 0.19, "stretch"),
        (0.25, 0.2, 0.25, "met"),
        (0.25, 0.2, 0.26, "missed"),
        (6, 8, None, "not measured"),
    ],
)
def test_verdict(target: float, stretch: float, got: float | None, verdict: str) -> None:
    at_most = stretch < target
    assert Goal("", lambda _: got, target, stretch, at_most=at_most).verdict(got) == verdict


def test_throughput_is_compared_with_the_best_peer_of_the_same_round() -> None:
    found = results(tabserve=[900, 1000, 5000], kserve_custom=[100, 120, 110], mlserver=[40, 200, 210])
    assert targets.compared(targets.STOCK).throughput(found) == pytest.approx(900 / 100)


def test_a_cell_that_another_group_measured_again_is_not_compared() -> None:
    found = results(tabserve=[900], kserve_custom=[100])
    again = Sample(found.samples[0].cell, 0, measurement(5000), group=1)
    found.samples += [again, again]
    assert targets.compared(targets.STOCK).throughput(found) == pytest.approx(9)


def test_a_peer_that_was_not_measured_does_not_count() -> None:
    assert targets.compared(("fastapi",)).throughput(results(tabserve=[1000])) is None
    assert targets.compared(("fastapi",)).throughput(results(fastapi=[1000])) is None


def test_decisions_with_reasons_are_compared_with_those_without() -> None:
    found = results()
    for peer, p50, server in (("tabserve-decisions", 0.001, 5.0), ("tabserve-reasons", 0.0012, 7.0)):
        cell = Cell(peer, "logistic", 1, "records", 1)
        found.samples += [Sample(cell, 0, measurement(1000, p50, server=server))]
    goal = next(each for each in targets.TARGETS if each.title.startswith("logistic, decisions with reasons, 1 conn"))
    assert goal.value(found) == pytest.approx(1.2)
    assert goal.by_cpu is not None
    assert goal.by_cpu(found) == pytest.approx(1.4)
    assert goal.verdict(1.2) == "met"
    assert goal.verdict(1.4) == "missed"


def test_a_saturated_generator_is_refused() -> None:
    with pytest.raises(PeerError, match="the generator was the bottleneck"):
        load.refuse_saturated(measurement(1000, generator=9.5, server=5.0))
    load.refuse_saturated(measurement(1000, generator=9.5, server=9.5))
    load.refuse_saturated(measurement(1000, generator=5.0, server=5.0))


def test_the_page_shows_verdicts_spread_and_failures() -> None:
    found = results(tabserve=[1000, 1100], fastapi=[200, 200])
    found.starts.append(Start("tabserve", "xgboost", 0, 1.5, 2**27, 1e-7))
    found.failures.append(Failure("mlserver", "xgboost", 0, "ended | with status 1"))
    page = report.page(found)
    assert "| the same ÷ FastAPI's | ≥ 3.5 | ≥ 5 | 5.25 | 5.25 | stretch |" in page
    assert "| tabserve | xgboost | 1 | json | 32 | 1,050 ± 50 |" in page
    assert "| tabserve | xgboost | 1.50 | 128 | 1e-07 |" in page
    assert "| mlserver | xgboost | 1 | ended \\| with status 1 |" in page


def test_results_are_read_as_they_were_written() -> None:
    found = results(tabserve=[1000, 1100])
    again = msgspec.json.decode(msgspec.json.encode(found), type=Results)
    assert again.measured(again.cells()[0]) == found.measured(found.cells()[0])


def test_foreign_work_on_a_core_is_told() -> None:
    quiet, disturbed = measurement(1000), measurement(1000)
    disturbed.usage.cores[0] += 2.0
    assert quiet.foreign == 0
    assert math.isclose(disturbed.foreign, 0.2)


@pytest.mark.parametrize(
    ("foreign", "counts", "unused"), [([0.2, 0.01, 0.0], 1, 1), ([0.2, 0.1, 0.3], 1, 0), ([0.0, 0.0], 0, 1)]
)
def test_what_others_disturbed_is_measured_again(foreign: list[float], counts: int, unused: int) -> None:
    tries = results(tabserve=[1000] * len(foreign)).samples
    for sample, share in zip(tries, foreign, strict=True):
        sample.measured.usage.cores[0] += share * sample.measured.seconds
    left = iter(tries)
    assert least_disturbed(left, lambda each: each.measured) is tries[counts]
    assert len(list(left)) == unused


def overload(right: int, *closed: int) -> Results:
    """Results under overload, and at 32 connections before and perhaps after it; then another server's."""
    found = results()
    refused = msgspec.structs.replace(measurement(right), refused=10, refused_quantiles=[0.02] * 202)
    over = Sample(Cell("tabserve", "xgboost", 1, "json", 1024, OVERLOAD), 0, refused, resident=[50, *[100] * 50, 104])
    before, *after = (Sample(Cell("tabserve", "xgboost", 1, "json", 32), 0, measurement(each)) for each in closed)
    found.samples += [before, over, *after, Sample(Cell("other", "xgboost", 1, "json", 32), 0, measurement(5000))]
    return found


@pytest.mark.parametrize(("closed", "share"), [((1000, 800), 1.0), ((1000,), 0.9)])
def test_overload_is_told_by_the_capacity_of_the_same_start(closed: tuple[int, ...], share: float) -> None:
    got = {target.title: target.value(overload(900, *closed)) for target in targets.TARGETS}
    assert got["overload at three times capacity, 1 row: goodput ÷ capacity"] == pytest.approx(share)
    assert got["overload, 1 row: p99 of refusals, ms"] == pytest.approx(20)
    assert got["overload, 1 row: memory ÷ that after 10 s"] == pytest.approx(1.04)
    assert got["overload at three times capacity, 64 rows: goodput ÷ capacity"] is None


def test_a_soak_compares_its_last_tenth_with_its_first() -> None:
    found = results()
    cell = Cell("tabserve", "xgboost", 1, "json", 64, HALF)
    found.samples += [Sample(cell, 0, measurement(100), descriptors=10 + number) for number in range(20)]
    assert targets.grown(lambda each: each.descriptors)(found) == pytest.approx(28.5 / 10.5)
    assert targets.grown(lambda each: each.measured.p99)(found) == pytest.approx(1.0)


def test_after_a_soak_each_minute_is_compared_with_the_fresh_start_beside_it() -> None:
    found = results()
    assert targets.aged(p99)(found) is None
    for slower in (1, 2, 8):  # the machine, which is the same for both sides
        for age, factor in ((AGED, 1.5), (FRESH, 1.0)):
            measured = measurement(100)
            measured = msgspec.structs.replace(measured, quantiles=[q * slower * factor for q in measured.quantiles])
            found.samples.append(Sample(Cell("tabserve" + age, "xgboost", 1, "json", 64, QUARTER), 0, measured))
    assert targets.aged(p99)(found) == pytest.approx(1.5)
    assert targets.aged(cpu)(found) == pytest.approx(1.0)
    assert targets.grown(lambda each: each.measured.p99)(found) is None


def test_what_is_measured_at_the_same_time_is_nobody_else_s_work() -> None:
    one, other = measurement(1000, generator=1.0, server=4.0), measurement(1000, generator=2.0, server=3.0)
    for each in (one, other):
        each.usage.cores[:] = [7.5, 3.0]
    assert load.apart(one, other).foreign == pytest.approx(0.05)
    assert one.foreign == pytest.approx(0.35)


def test_binary_is_compared_with_the_fastest_engine_alone() -> None:
    found = results()
    found.samples.append(Sample(Cell("tabserve", "xgboost", 64, "binary", 32), 0, measurement(1000)))
    assert targets.of_bare_engine(found) is None
    found.bare += [Bare("xgboost", "a", 64, 0.0008), Bare("xgboost", "b", 64, 0.002), Bare("xgboost", "a", 1, 1e-5)]
    assert targets.of_bare_engine(found) == pytest.approx(0.8)
    assert targets.of_bare_engine_by_cpu(found) == pytest.approx(0.8 / 0.95)
