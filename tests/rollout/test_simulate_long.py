"""False rollbacks and detection, by a thousand simulated rollouts each; the figures are printed."""

from __future__ import annotations

import numpy as np
import pytest

from tabserve.rollout.plan import leave
from tabserve.rollout.simulate import CASES, GOOD, RULES, Traffic, run
from tests.rollout.courses import flagger, gate

RUNS = 1000
MOST = 0.01 + 3 * float(np.sqrt(0.01 * 0.99 / RUNS))
pytestmark = pytest.mark.long


@pytest.mark.parametrize("bursts", ["none", "common"])
@pytest.mark.parametrize("rpm", [50, 500, 5000])
def test_canaries_as_good_as_stable_are_taken_back_as_seldom_as_stated(rpm: float, bursts: str) -> None:
    found = run(GOOD, Traffic(rpm, mirrored=0.1, bursts=bursts), RUNS, seed=1)
    print(f"\nas good, bursts {bursts}, {rpm:g} a minute: {found.share:.1%} of {RUNS} taken back in an hour")

    assert found.share <= MOST


@pytest.mark.parametrize("watched", [0, 10, 60])
@pytest.mark.parametrize("rpm", [50, 500, 5000])
def test_bursts_of_single_pods_are_published(rpm: float, watched: int) -> None:
    """What no test on counts keeps: errors that come for minutes at one pod, of 2 of the canary and 4 of stable."""
    found = run(GOOD, Traffic(rpm, bursts="pods", watched=watched), RUNS, seed=1, only="errors")
    print(
        f"\nas good, pods' own bursts, {rpm:g} a minute, watched for {watched} min before: {found.share:.1%} taken back"
    )

    assert len(found.minutes) == RUNS


@pytest.mark.parametrize(
    ("case", "mirrored", "minutes"),
    [
        ("2 % errors", 0, 9),
        ("p99 20 → 50 ms", 0, 8),
        ("scores, KS 0.13", 0, 25),
        ("5 % labels flipped", 1.0, 2),
        ("5 % labels flipped", 0.1, 10),
    ],
)
def test_worse_canaries_are_found_in_time_at_500_a_minute(case: str, mirrored: float, minutes: float) -> None:
    check, canary = CASES[case]
    found = run(canary, Traffic(500, mirrored=mirrored), RUNS, seed=1, only=check)
    print(f"\n{case}, mirrored {mirrored:.0%}: {found.share:.1%} of {RUNS} found, median {found.median:.1f} min")

    assert found.median <= minutes


def test_the_time_of_healthy_rollouts_is_published() -> None:
    for rpm in (50, 500, 5000):
        steps = [leave(rpm, share, RUNS, 1, RULES, GOOD) for share in (0.05, 0.2, 0.5)]
        total = np.sum(steps, axis=0)
        ended = total <= 240
        print(f"\n{rpm} a minute: {ended.mean():.0%} end within 4 hours, median {np.median(total[ended]):.0f} min")
        assert ended.any()


@pytest.mark.parametrize("errors", [0.005, 0.02, 0.05, 0.3])
@pytest.mark.parametrize("rpm", [50, 500, 5000])
def test_whole_rollouts_are_published_beside_those_by_fixed_thresholds(rpm: float, errors: float) -> None:
    ours, fixed = gate(rpm, errors, RUNS, seed=1), flagger(rpm, errors, RUNS, seed=1)
    print(f"\n{rpm:g} a minute, {errors:.1%} errors: gate {ours.told()}")
    print(f"{rpm:g} a minute, {errors:.1%} errors: fixed thresholds {fixed.told()}")

    assert (ours.back if errors == 0.005 else ours.promoted).mean() <= MOST
