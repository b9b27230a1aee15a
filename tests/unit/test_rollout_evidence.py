"""Evidence against a canary: exact for small counts, and a fair bet as long as the canary is as good as stable."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import comb, log

import numpy as np
import pytest

from tabserve.arrays import Array
from tabserve.rollout.evidence import (
    ABOVE,
    BELOW,
    FREQUENT,
    RARE,
    Counts,
    frequent,
    log_mean,
    rare,
    rate,
    rate_interval,
    ratio_interval,
)

RNG_SEED = 7
MARGIN = 1.25
SIDES = ((1.0, 1), (MARGIN, 1), (1 / MARGIN, -1))
"""Odds that are still good, and on which side of them the others are."""


def powers(ratios: tuple[float, ...], side: int) -> tuple[float, ...]:
    return tuple(ratio**side for ratio in ratios)


def drawn(canary: int, stable: int, events: int, odds: float) -> dict[int, Fraction]:
    """The exact distribution of the canary's events, of so many of both."""
    each = Fraction(odds)
    numbers = range(max(0, events - stable), min(canary, events) + 1)
    weights = {number: comb(canary, number) * comb(stable, events - number) * each**number for number in numbers}
    return {number: weight / sum(weights.values()) for number, weight in weights.items()}


def urns(most: int) -> list[tuple[int, int, int]]:
    pairs = product(range(most + 1), repeat=2)
    return [(canary, stable, events) for canary, stable in pairs for events in range(canary + stable + 1)]


def counts(canary: int, stable: int, events: int, number: Array) -> Counts:
    return Counts(number, np.array(canary), events - number, np.array(stable))


@pytest.mark.parametrize(("good", "side"), SIDES)
def test_the_exact_evidence_is_that_of_enumeration(good: float, side: int) -> None:
    ratios = powers(FREQUENT, side)
    for canary, stable, events in urns(6):
        base = drawn(canary, stable, events, good)
        numbers = np.array(list(base))
        found = frequent(counts(canary, stable, events, numbers), good, ratios)
        others = [drawn(canary, stable, events, good * ratio) for ratio in ratios]
        expected = [[log(other[number] / base[number]) for other in others] for number in base]
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", [rare, frequent])
@pytest.mark.parametrize(("good", "side"), SIDES)
def test_the_expectation_is_at_most_one_for_a_canary_that_is_just_good(form: object, good: float, side: int) -> None:
    ratios = powers(RARE if form is rare else FREQUENT, side)
    assert callable(form)
    means = []
    for canary, stable, events in urns(8):
        chances = drawn(canary, stable, events, good)
        evidence = np.exp(form(counts(canary, stable, events, np.array(list(chances))), good, ratios))
        means.append(np.array([float(chance) for chance in chances.values()]) @ evidence)

    assert np.max(means) <= 1 + 1e-9
    assert np.max(means) > 1 - 1e-9


def test_the_expectation_is_at_most_one_whenever_one_stops() -> None:
    """Over all courses of three ticks of ever other shares, stopped as soon as the evidence has grown by half."""
    ticks = [(2, 3, 2), (4, 2, 3), (3, 5, 4)]
    courses = [(Fraction(1), np.zeros(len(RARE)))]
    stopped: list[tuple[Fraction, Array]] = []
    for canary, stable, events in ticks:
        coming: list[tuple[Fraction, Array]] = []
        for chance, logs in courses:
            for number, share in drawn(canary, stable, events, 1).items():
                after = logs + rare(counts(canary, stable, events, np.array(number)), 1, RARE)
                (stopped if log_mean(after) >= log(1.5) else coming).append((chance * share, after))
        courses = coming
    ends = [*stopped, *courses]

    assert stopped
    assert sum(chance for chance, _ in ends) == 1
    assert sum(float(chance) * np.exp(log_mean(logs)) for chance, logs in ends) <= 1 + 1e-9


@pytest.mark.parametrize("form", [rare, frequent])
def test_as_good_canaries_are_hardly_ever_taken_for_worse_ones(form: object) -> None:
    """1,000 canaries with rates that change all the time for both slots, looked at 60 times; the bound is 1 in 20."""
    assert callable(form)
    generator = np.random.default_rng(7)
    logs, found = np.zeros((1000, len(RARE))), np.zeros(1000, bool)
    for tick in range(60):
        canary, stable = generator.poisson(10 + tick, 1000), generator.poisson(40, 1000)
        rates = generator.uniform(0, 0.2, 1000)
        events = Counts(generator.binomial(canary, rates), canary, generator.binomial(stable, rates), stable)
        logs += form(events, 1.0, RARE)
        found |= log_mean(logs) >= log(20)

    assert found.mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)


def test_evidence_finds_what_is_worse_and_only_on_its_side() -> None:
    worse, better = (Counts(*map(np.array, found)) for found in ((20, 1000, 20, 4000), (1, 1000, 80, 4000)))

    assert log_mean(rare(worse, 1, RARE)) > log(1000)
    assert log_mean(rare(better, 1, RARE)) < 0
    assert log_mean(rare(better, 1, powers(RARE, -1))) > log(1000)


def test_ticks_with_the_same_shares_may_be_merged() -> None:
    ticks = [Counts(*map(np.array, tick)) for tick in ((3, 100, 5, 400), (0, 50, 1, 200), (2, 25, 9, 100))]
    merged = Counts(*(np.sum([tick[at] for tick in ticks], axis=0) for at in range(4)))

    np.testing.assert_allclose(sum(rare(tick, 1, RARE) for tick in ticks), rare(merged, 1, RARE))


def test_the_order_of_ticks_and_of_events_does_not_matter() -> None:
    generator = np.random.default_rng(1)
    canary, stable = generator.integers(20, 50, (2, 30, 1))
    found = Counts(generator.binomial(canary, 0.1, (30, 4)), canary, generator.binomial(stable, 0.2, (30, 4)), stable)
    order, columns = generator.permutation(30), generator.permutation(4)
    shuffled = Counts(*(part[order][:, columns if part.shape[1] > 1 else [0]] for part in found))
    for form in (rare, frequent):
        total, other = (log_mean(form(each, 1, FREQUENT).sum(axis=0), (0, 1)) for each in (found, shuffled))
        np.testing.assert_allclose(total, other)


@pytest.mark.parametrize("factor", [1, 100, 10_000])
def test_large_counts_are_as_exact_as_small_ones(factor: int) -> None:
    """In the limit of rare events among many requests, the exact form is that of `rare`."""
    few = Counts(np.array(30), np.array(1000 * factor), np.array(70), np.array(4000 * factor))
    many = Counts(*(part * factor for part in (np.array(150), np.array(1000), np.array(400), np.array(4000))))

    assert np.isfinite(frequent(many, MARGIN, FREQUENT)).all()
    np.testing.assert_allclose(frequent(few, 1, FREQUENT), rare(few, 1, FREQUENT), rtol=0.2 / factor, atol=1 / factor)


def test_nothing_seen_is_no_evidence() -> None:
    nothing = Counts(*(np.zeros(3) for _ in range(4)))
    alone = Counts(np.array(2), np.array(9), np.array(0), np.array(0))

    for form in (rare, frequent):
        np.testing.assert_array_equal(form(nothing, 1, RARE), np.zeros((3, len(RARE))))
        np.testing.assert_allclose(form(alone, 1, RARE), np.zeros(len(RARE)), atol=1e-12)


@pytest.mark.parametrize("ratios", [BELOW, ABOVE])
@pytest.mark.parametrize("bound", [0.02, 0.4])
def test_a_rate_at_its_bound_is_a_fair_bet(ratios: tuple[float, ...], bound: float) -> None:
    events = np.arange(41)
    chances = np.array([comb(40, number) for number in events]) * bound**events * (1 - bound) ** (40 - events)

    np.testing.assert_allclose(chances @ np.exp(rate(events, np.array(40), bound, ratios)), 1)


def test_bounds_of_a_rate_hold_at_every_look() -> None:
    generator = np.random.default_rng(RNG_SEED)
    missed = 0
    for _ in range(100):
        events = np.cumsum(generator.random(1000) < 0.03)
        looks = [rate_interval(float(events[at]), at + 1, 0.05) for at in range(0, 1000, 40)]
        missed += not all(low <= 0.03 <= high for low, high in looks)

    assert missed / 100 <= 0.05
    assert rate_interval(0, 0, 0.05) == (0.0, 1.0)
    assert rate_interval(30, 1000, 0.05) == pytest.approx((0.0143, 0.0540), abs=1e-4)
    low, high = rate_interval(7, 7, 0.05)
    assert (low < 1, high) == (True, 1.0)


def test_bounds_of_a_ratio_of_rates_hold_at_every_look_and_over_several_shares() -> None:
    generator = np.random.default_rng(RNG_SEED)
    missed = 0
    for _ in range(40):
        ours = [np.cumsum(generator.random(200) < 2 * share / (1 + share)) for share in (0.05, 0.5)]
        for at in range(0, 200, 40):
            first = (0.05, float(ours[0][at]), float(at + 1 - ours[0][at]))
            second = (0.5, float(ours[1][at]), float(at + 1 - ours[1][at]))
            looks = [ratio_interval(steps, 0.05) for steps in ([first], [first, second])]
            if not all(low <= 2 <= high for low, high in looks):
                missed += 1
                break

    assert missed / 40 <= 0.05


@pytest.mark.parametrize(
    ("steps", "low", "high"),
    [
        ([], 0.0, np.inf),
        ([(0.2, 0, 40)], 0.0, 0.58),
        ([(0.2, 9, 0)], 4.07, np.inf),
        ([(0.2, 17, 8)], 2.15, 43.6),
        ([(0.2, 200_000, 800_000)], 0.98, 1.02),
    ],
)
def test_bounds_of_a_ratio_say_what_the_counts_can(
    steps: list[tuple[float, float, float]], low: float, high: float
) -> None:
    assert ratio_interval(steps, 0.05) == pytest.approx((low, high), rel=0.05)
