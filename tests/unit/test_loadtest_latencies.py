from __future__ import annotations

import numpy as np

from tabserve_loadtest.latencies import Latencies
from tabserve_loadtest.recording import Outcome, Recording

DRAWN = np.random.default_rng(3).lognormal(8, 1.2, 30_000).astype(int).tolist()


def recorded(values: list[int]) -> Latencies:
    latencies = Latencies()
    for value in values:
        latencies.record(value)
    return latencies


def test_two_generators_report_the_same_quantiles_as_one_on_the_same_latencies() -> None:
    outcomes: list[Outcome] = ["ok", "ok", "wrong", "refused", "timeout"]
    whole, parts = Recording(), (Recording(), Recording())
    for number, latency in enumerate(DRAWN):
        request = (number // 1000, latency, number % 50, outcomes[number % 5], "ab"[number % 7 == 0], 3)
        whole.add(*request)
        parts[number % 2].add(*request)

    merged = Recording()
    for part in parts:
        merged.merge(Recording.decode(part.encode()))

    assert merged.latencies.quantiles(0.99) == whole.latencies.quantiles(0.99)
    assert merged.refused.quantiles(0.99) == whole.refused.quantiles(0.99)
    assert merged.late.quantiles(0.99) == whole.late.quantiles(0.99)
    assert {name: r.quantiles(0.99) for name, r in merged.releases.items()} == {
        name: r.quantiles(0.99) for name, r in whole.releases.items()
    }
    assert (merged.outcomes, merged.counts) == (whole.outcomes, whole.counts)
    for second in whole.seconds:
        assert merged.seconds[second].latencies.quantiles(0.99) == whole.seconds[second].latencies.quantiles(0.99)


def test_a_latency_is_known_to_a_thousandth() -> None:
    latencies = recorded(DRAWN)
    ordered = sorted(DRAWN)
    ranks = range(1, len(DRAWN) + 1, 97)
    for rank, value in zip(ranks, latencies.at_ranks(list(ranks)), strict=True):
        assert ordered[rank - 1] <= value <= ordered[rank - 1] * 1.001 + 1


def test_half_a_millisecond_is_not_rounded_away() -> None:
    (quantile,) = [q for q in recorded([1400] * 100 + [1600] * 100).quantiles(0.99) if q.q == 0.5]

    assert (quantile.low, quantile.value, quantile.high) == (1400, 1400, 1600)


def test_bounds_hold_the_true_quantile_as_often_as_they_say() -> None:
    rng = np.random.default_rng(11)
    runs, true = 400, 1_000_000 * -np.log(0.01)
    missed = 0
    for _ in range(runs):
        quantile = recorded(rng.exponential(1_000_000, 700).astype(int).tolist()).quantile(0.99, 0.95)
        assert quantile is not None
        assert quantile.high is not None
        missed += not quantile.low <= true <= quantile.high

    assert missed / runs <= 0.10  # each side with 95 %


def test_over_counts_what_is_longer() -> None:
    latencies = recorded([10, 20, 20, 30, 1_000_000])

    assert [latencies.over(limit) for limit in (9, 10, 20, 29.9, 30, 999_000, 1_000_000)] == [5, 4, 2, 2, 1, 1, 0]


def test_nothing_recorded_has_no_quantile() -> None:
    assert Latencies().quantile(0.5, 0.99) is None
    assert Latencies(Latencies().encode()).count == 0
