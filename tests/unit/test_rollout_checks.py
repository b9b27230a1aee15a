"""Checks, budgets, simulated rollouts and plans."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from tabserve.cli import main
from tabserve.rollout.checks import BOUNDS, CHECKS, Budget, Judge, Rules, above
from tabserve.rollout.dispersion import dispersion
from tabserve.rollout.evidence import Counts
from tabserve.rollout.plan import leave, plan, whole
from tabserve.rollout.simulate import CASES, GOOD, Traffic, run

RULES = Rules()
FALSE = 0.01


def most(runs: int) -> float:
    """The share of false rollbacks that is not yet three standard deviations more than allowed."""
    return FALSE + 3 * float(np.sqrt(FALSE * (1 - FALSE) / runs))


def pair(canary_events: float, canary: float, stable_events: float, stable: float) -> Counts:
    return Counts(*(np.array([value]) for value in (canary_events, canary, stable_events, stable)))


def test_the_shares_of_the_checks_add_up() -> None:
    assert sum(check.share for check in CHECKS.values()) == pytest.approx(1)


@pytest.mark.parametrize("check", ["errors", "refused"])
def test_a_check_takes_the_canary_back_by_itself_when_its_evidence_is_what_it_needs(check: str) -> None:
    judge = Judge(RULES)
    while not judge.back():
        judge.add({check: pair(1, 20, 1, 80)})
    alone = float(judge.of(check))
    rest = sum(other.share for other in CHECKS.values() if other.name != check)

    assert RULES.needed(check) * (1 - rest * FALSE) <= np.exp(alone)
    assert judge.together() == pytest.approx(np.log(CHECKS[check].share * np.exp(alone) + rest))


def test_usual_events_wait_for_their_block() -> None:
    at_once, by_blocks = Judge(RULES), Judge(RULES, block=3)
    ticks = [pair(3, 20, 8, 80), pair(9, 21, 7, 79), pair(8, 20, 9, 81)]
    for tick in ticks[:2]:
        by_blocks.add({"decisions": tick, "errors": tick})
    assert set(by_blocks.logs) == {"errors"}
    by_blocks.add({"decisions": ticks[2]})
    at_once.add({"decisions": Counts(*(sum(parts) for parts in zip(*ticks, strict=True)))})

    np.testing.assert_allclose(by_blocks.logs["decisions"], at_once.logs["decisions"])


def test_evidence_of_many_rollouts_is_that_of_each() -> None:
    random = np.random.default_rng(5)
    canary, stable = np.full((4, 1), 30), np.full((4, 1), 70)
    ticks = [Counts(random.integers(0, 9, (4, 2)), canary, random.integers(0, 9, (4, 2)), stable) for _ in range(3)]
    for check in ("decisions", "latency", "scores"):
        together, alone = Judge(RULES), [Judge(RULES) for _ in range(4)]
        for tick in ticks:
            together.add({check: tick})
            for at, judge in enumerate(alone):
                judge.add({check: Counts(*(part[at] for part in tick))})
        np.testing.assert_allclose(together.together(), [float(judge.together()) for judge in alone])


def test_a_budget_is_proven_by_requests_not_by_time() -> None:
    good, bad = Budget(0.02, 0.05), Budget(0.02, 0.05)
    good.add(np.array(0), np.array(150))
    assert not good.proven()
    good.add(np.array(0), np.array(150))
    bad.add(np.array(6), np.array(300))

    assert good.proven()
    assert not bad.proven()


def test_bins_become_what_is_above_their_bounds() -> None:
    np.testing.assert_array_equal(above(np.array([[1, 2, 3, 4]])), [[9, 7, 4]])
    assert GOOD.slower_than(BOUNDS[-1]) == pytest.approx(GOOD.latencies()[-1])


@pytest.mark.parametrize(("rpm", "bursts"), [(50, "none"), (500, "common")])
def test_canaries_as_good_as_stable_are_not_taken_back(rpm: float, bursts: str) -> None:
    found = run(GOOD, Traffic(rpm, minutes=8, mirrored=0.1, bursts=bursts), runs=100, seed=11)

    assert found.share <= most(100)


@pytest.mark.parametrize(
    ("case", "share", "minutes"),
    [("2 % errors", 0.9, 9), ("5 % errors", 1.0, 3), ("p99 20 → 50 ms", 1.0, 8), ("5 % labels flipped", 1.0, 2)],
)
def test_worse_canaries_are_found_by_the_check_that_should(case: str, share: float, minutes: float) -> None:
    check, canary = CASES[case]
    found = run(canary, Traffic(500, minutes=20, mirrored=1.0), runs=100, seed=11, only=check)

    assert found.share >= share
    assert found.median <= minutes
    assert set(found.by) - {""} == {check}


@pytest.mark.parametrize("pods", [2, 4])
def test_pods_that_are_equal_differ_by_chance_and_bursts_are_seen(pods: int) -> None:
    random = np.random.default_rng(4)
    requests = random.poisson(20, (50, pods, 360))
    bursts = np.exp(1.2 * np.repeat(random.normal(size=(50, pods, 30)), 12, axis=-1))
    equal, unequal = (dispersion(random.binomial(requests, rate), requests) for rate in (0.01, 0.01 * bursts))

    assert np.median(equal) < 1.5
    assert np.median(unequal) > 2
    assert dispersion(np.zeros((2, 30)), np.ones((2, 30))) == 1
    assert dispersion(np.ones((1, 30)), np.ones((1, 30))) == 1


def test_what_pods_differ_by_is_discounted_if_they_were_watched() -> None:
    shares = [
        run(GOOD, Traffic(5000, minutes=20, bursts="pods", watched=watched), 100, 1, only="errors").share
        for watched in (0, 60)
    ]

    assert shares[0] > 0.1
    assert shares[1] <= most(100)


def test_requests_with_many_rows_of_one_customer_prove_nothing_where_each_counts_once() -> None:
    """One request in a hundred has 1,000 rows, all decided alike: counted by row, they look like another mix."""
    random, runs = np.random.default_rng(2), 100
    by_row, by_request = Judge(RULES), Judge(RULES)
    found = {by_row: np.zeros(runs, bool), by_request: np.zeros(runs, bool)}
    for _ in range(20):
        requests = [random.poisson(500 * share, (runs, 1)) for share in (0.2, 0.8)]
        large = [random.binomial(some, 0.01) for some in requests]
        events = [random.binomial(some - few, 0.1) for some, few in zip(requests, large, strict=True)]
        more = [random.binomial(few, 0.1) for few in large]
        rows = [some + 999 * few for some, few in zip(requests, large, strict=True)]
        of_rows = [event + 1000 * many for event, many in zip(events, more, strict=True)]
        by_row.add({"decisions": Counts(of_rows[0], rows[0], of_rows[1], rows[1])})
        first = [event + many for event, many in zip(events, more, strict=True)]
        by_request.add({"decisions": Counts(first[0], requests[0], first[1], requests[1])})
        for judge, ever in found.items():
            ever |= judge.back()

    assert found[by_row].mean() > 0.5
    assert not found[by_request].any()


def test_a_plan_takes_longer_with_less_traffic() -> None:
    little, much = (plan(rpm, [50], runs=10, seed=1) for rpm in (50, 500))
    few, many = (np.median(leave(rpm, 0.2, 100, 1, RULES, GOOD)) for rpm in (50, 500))

    assert np.median(whole(much)) < np.median(whole(little))
    assert many < few
    assert much[0].found["5 % errors"].median < little[0].found["5 % errors"].median


def test_the_commands_print_their_tables_and_repeat_them() -> None:
    planned = ["rollout", "plan", "--rpm=500", "--steps=50", "--runs=10"]
    simulated = ["rollout", "simulate", "--rpm=500", "--bursts=none", "--runs=10", "--minutes=2"]
    first, second = (CliRunner().invoke(main, planned) for _ in range(2))
    table = CliRunner().invoke(main, simulated)

    assert first.exit_code == table.exit_code == 0, first.output + table.output
    assert first.stdout == second.stdout
    assert [line.split("  ")[0] for line in first.stdout.splitlines()[:2]] == ["step", "50 %"]
    assert "as good, bursts none, 500 a minute: 0.0% of 10 taken back" in table.stdout


@pytest.mark.parametrize(
    "options", [["--steps=50,20"], ["--steps=20,100"], ["--steps=a"], ["--rpm=0"], ["--rpm=500", "--steps="]]
)
def test_a_plan_that_is_none_is_refused(options: list[str]) -> None:
    given = options if any("rpm" in option for option in options) else [*options, "--rpm=500"]

    assert CliRunner().invoke(main, ["rollout", "plan", *given]).exit_code == 2
