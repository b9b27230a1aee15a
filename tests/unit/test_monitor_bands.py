"""The monitor's bands hold as often as they say, however often one looks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from tabserve.monitor.bands import (
    FEWEST,
    band,
    interval,
    reference_band,
    reference_event_band,
    spent,
    weighted_interval,
)

ALPHA = 0.5
"""So large that a band that does not hold would show in few runs."""


def test_shares_of_many_events_stay_within_the_band_at_every_look() -> None:
    random, bins = np.random.default_rng(0), 20
    cells = random.multinomial(50, np.full(bins, 1 / bins), (2_000, 400)).cumsum(axis=1)
    rows = cells.sum(axis=-1)
    distance = np.abs(cells.cumsum(axis=-1) / rows[..., None] - np.arange(1, bins + 1) / bins).max(axis=-1)

    assert 0 < (distance > band(rows, ALPHA, math.log(bins - 1))).any(axis=1).mean() <= ALPHA


@pytest.mark.parametrize("chance", [0.02, 0.5])
def test_one_share_stays_within_the_band_and_the_interval_after_every_row(chance: float) -> None:
    random, rows = np.random.default_rng(1), np.arange(1, 2_001)
    hits = (random.random((400, len(rows))) < chance).cumsum(axis=1)
    low, high = interval(hits[:, ::20], rows[::20], ALPHA)

    assert (np.abs(hits / rows - chance) > band(rows, ALPHA)).any(axis=1).mean() <= ALPHA
    assert 0 < ((low > chance) | (high < chance)).any(axis=1).mean() <= ALPHA


def test_weighted_shares_of_a_sample_stay_within_the_band() -> None:
    random, count = np.random.default_rng(2), 4_000
    rare = random.random((500, count)) < 0.05
    event = random.random((500, count)) < np.where(rare, 0.9, 0.2)
    kept = rare | (random.random((500, count)) < 0.1)
    weights = kept * np.where(rare, 1.0, 10.0)
    rows, mass = kept.cumsum(axis=1)[:, 1_000:], weights.cumsum(axis=1)[:, 1_000:]
    share = (weights * event).cumsum(axis=1)[:, 1_000:] / mass
    truth = 0.05 * 0.9 + 0.95 * 0.2

    outside = np.abs(share - truth) > band(rows, ALPHA, ratio=10 * rows / mass)
    assert outside.any(axis=1).mean() <= ALPHA


def test_the_band_is_narrower_than_the_one_for_every_threshold() -> None:
    """Howard and Ramdas, "Sequential estimation of quantiles", Bernoulli 28(3), 2022: their DKW band."""
    rows, alpha = np.meshgrid([100, 1_000, 100_000, 10_000_000], [0.05, 1e-3, 1e-6, 1e-9])
    every = 0.85 * np.sqrt((np.log(np.log(np.e * rows)) + 0.8 * np.log(1_612 / alpha)) / rows)

    assert (band(rows, alpha, math.log(32)) < every).all()


def test_the_band_widens_for_few_rows_and_for_unequal_weights() -> None:
    assert band(0, 0.05) == band(1, 0.05) > 1
    assert band(FEWEST / 4, 0.05) == pytest.approx(4 * band(FEWEST, 0.05))
    assert band(1_000, 0.05, ratio=2.0) == 2 * band(1_000, 0.05)


def test_alpha_is_spent_over_all_windows() -> None:
    assert spent(0.05, np.arange(1, 100_001)).sum() == pytest.approx(0.05, rel=1e-4)


def test_the_references_bands_are_dkws_and_hoeffdings() -> None:
    random, rows = np.random.default_rng(3), 200
    samples = np.sort(random.random((2_000, rows)), axis=1)
    steps = np.arange(rows + 1) / rows
    distance = np.maximum(np.abs(samples - steps[1:]), np.abs(samples - steps[:-1])).max(axis=1)

    assert 0.3 < (distance > reference_band(rows, ALPHA)).mean() <= ALPHA
    assert reference_event_band(rows, ALPHA) == reference_band(rows, ALPHA)
    assert reference_event_band(rows, ALPHA, math.log(3)) == pytest.approx(math.sqrt(math.log(3 * 4) / 400))


@given(st.integers(0, 400), st.integers(1, 400), st.floats(1e-6, 0.5))
def test_an_interval_ends_where_the_mixture_is_as_much_likelier_as_alpha_says(
    first: int, rows: int, alpha: float
) -> None:
    hits = min(first, rows)
    low, high = (float(each) for each in interval(hits, rows, alpha))

    def excess(chance: float) -> float:
        mixed = special.betaln(hits + 0.5, rows - hits + 0.5) - special.betaln(0.5, 0.5)
        return float(
            mixed - stats.binom.logpmf(hits, rows, chance) + math.log(special.comb(rows, hits)) + math.log(alpha)
        )

    assert 0 <= low <= hits / rows <= high <= 1
    ends = [end for end, reached in ((low, hits > 0), (high, hits < rows)) if reached]
    assert [excess(end) for end in ends] == pytest.approx([0.0] * len(ends), abs=1e-4)


def test_an_interval_without_rows_is_everything() -> None:
    assert [each.tolist() for each in interval([0, 3], [0, 3], 0.05)] == [
        [0.0, pytest.approx(0.19, abs=0.1)],
        [1.0, 1.0],
    ]
    assert weighted_interval(0.0, 0.0, 0, 1.0, 0.05) == (0.0, 1.0)


def test_equal_weights_give_the_interval_and_others_the_band() -> None:
    low, high = (float(each) for each in interval(30, 400, 0.05))

    assert weighted_interval(75.0, 1_000.0, 400, 2.5, 0.05) == (low, high)
    width = float(band(400, 0.05, ratio=1.6))
    assert weighted_interval(500.0, 1_000.0, 400, 4.0, 0.05) == (0.5 - width, 0.5 + width)
