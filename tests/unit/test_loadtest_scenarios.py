from __future__ import annotations

import yaml

from tabserve_loadtest.measured import recovery_seconds
from tabserve_loadtest.objectives import Load, Objectives
from tabserve_loadtest.recording import Outcome, Recording
from tabserve_loadtest.replicas import during
from tabserve_loadtest.scenarios import autoscale, canary, ramp
from tabserve_loadtest.sizing import Pod, replicas, snippet
from tabserve_loadtest.verdict import Verdict


def search(capacity: float, most: float = 10_000) -> tuple[list[float], list[ramp.Step]]:
    """The rates a ramp tries on a server of this capacity."""
    steps, rates = list[ramp.Step](), list[float]()
    rate: float | None = 50
    while rate is not None:
        rates.append(rate)
        steps.append(ramp.Step(rate, Recording(), Verdict.PASS if rate <= capacity else Verdict.FAIL))
        rate = ramp.following(steps, 2, most, 1.1)
    return rates, steps


def test_a_ramp_ends_between_the_highest_rate_that_held_and_the_lowest_that_did_not() -> None:
    for capacity in (60, 333, 4_000):
        rates, steps = search(capacity)
        held = max(step.rate for step in steps if step.verdict is Verdict.PASS)
        broken = min(step.rate for step in steps if step.verdict is not Verdict.PASS)
        assert held <= capacity < broken <= held * 1.1
        assert len(rates) < 15


def test_a_ramp_ends_at_once_where_the_first_step_breaks_and_at_most_where_none_does() -> None:
    assert search(10)[0] == [50]
    assert max(search(1e9, most=1000)[0]) == 800


def recorded(seconds: list[tuple[int, int, int]]) -> Recording:
    """A recording; each second has requests that were ok and fast, ok and slow, refused."""
    found = Recording()
    for number, counts in enumerate(seconds):
        kinds: list[tuple[int, Outcome]] = [(1000, "ok"), (900_000, "ok"), (1000, "refused")]
        for count, (latency, outcome) in zip(counts, kinds, strict=True):
            for _ in range(count):
                found.add(number, latency, 0, outcome, "", 1)
    return found


def test_recovery_ends_with_the_last_bad_second() -> None:
    objectives = Objectives(Load(), latency={"p99": 100})
    well, slow, refusing = (100, 2, 0), (80, 20, 0), (50, 0, 50)

    assert recovery_seconds(recorded([slow, slow, well, well]), 2, objectives) == 0
    assert recovery_seconds(recorded([slow, slow, slow, well, refusing, well]), 2, objectives) == 3
    assert recovery_seconds(recorded([slow, slow, well, slow]), 2, objectives) is None


def released(**counts: int) -> Recording:
    """A recording with these numbers of answers from each release."""
    found = Recording()
    for release, count in counts.items():
        for _ in range(count):
            found.add(0, 1000, 0, "ok", release, 1)
    return found


def test_a_canary_gets_its_share_as_far_as_chance_allows() -> None:
    found = [canary.split(released(a=1000 - n, b=n), 0.2, 0.99).verdict for n in (0, 150, 185, 215, 260)]

    assert found == [Verdict.FAIL, Verdict.FAIL, Verdict.PASS, Verdict.PASS, Verdict.FAIL]


def test_reaction_is_from_the_step_to_the_first_ready_replica_more() -> None:
    timeline = {"predictor": [(0.0, 1), (75.0, 2), (90.0, 3), (170.0, 1)], "transformer": [(0.0, 1)]}

    assert autoscale.figures(timeline, 60) == {"replicas_low": 2, "replicas_high": 4, "reaction_s": 15}
    assert "reaction_s" not in autoscale.figures({"predictor": [(0.0, 2)]}, 60)


def test_a_timeline_has_replicas_requests_and_latency_in_steps() -> None:
    timeline = {"predictor": [(0.0, 1), (4.9, 2), (9.0, 1)]}
    table = autoscale.table(recorded([(10, 0, 0)] * 5 + [(19, 1, 5)] * 3), timeline)

    assert table.columns == ("s", "predictor", "requests/s", "p50", "p99", "not ok")
    assert table.rows == (("0", "1", "10.0", "1 ms", "1 ms", "0"), ("5", "2", "15.0", "1 ms", "900 ms", "15"))


def test_replicas_of_a_run_start_with_what_was_before() -> None:
    changes = [(90.0, 1), (95.0, 2), (105.0, 2), (120.0, 3), (900.0, 1)]

    assert during(changes, 100, 60) == [(0.0, 2), (20.0, 3)]
    assert during(changes, 50, 10) == [(0.0, 1)]


def test_values_hold_the_peak_with_a_pod_lost() -> None:
    pod = Pod(capacity=100, cpu=0.2, memory=150)
    values = yaml.safe_load(snippet(pod, 450, 12))

    assert replicas(pod, 450) == 8  # 450 / 70 is 7 rounded up
    assert (8 - 1) * 100 * 0.7 >= 450
    assert values["predictor"]["autoscaling"]["minReplicas"] == values["knative"]["minReplicas"] == 8
    assert values["predictor"]["resources"]["requests"] == {"cpu": "200m", "memory": "256Mi"}
    assert values["knative"]["scaleTarget"] == 70
