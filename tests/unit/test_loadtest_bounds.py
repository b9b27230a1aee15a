from __future__ import annotations

from math import comb

import pytest

from tabserve_loadtest import bounds


def at_most(k: int, n: int, share: float) -> float:
    return sum(comb(n, i) * share**i * (1 - share) ** (n - i) for i in range(k + 1))


@pytest.mark.parametrize(("share", "needed"), [(0.01, 459), (0.001, 4603), (0.1, 44)])
def test_a_quantile_needs_as_many_requests_as_mlperf_says(share: float, needed: int) -> None:
    assert bounds.most_over(needed - 1, share, 0.99) == -1
    assert bounds.most_over(needed, share, 0.99) == 0
    assert bounds.least_requests(0, share, 0.99) == needed


@pytest.mark.parametrize("n", [1, 7, 44, 200, 459])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_counts_prove_what_the_binomial_distribution_says(n: int, share: float) -> None:
    most, least = bounds.most_over(n, share, 0.99), bounds.least_over(n, share, 0.99)

    assert most == max((k for k in range(n + 1) if at_most(k, n, share) <= 0.01 + 1e-12), default=-1)
    proven = [k for k in range(1, n + 1) if 1 - at_most(k - 1, n, share) <= 0.01 + 1e-12]
    assert least == min(proven, default=n + 1)


@pytest.mark.parametrize("over", [0, 1, 5, 40])
def test_least_requests_are_the_least(over: int) -> None:
    n = bounds.least_requests(over, 0.01, 0.99)

    assert bounds.most_over(n, 0.01, 0.99) >= over > bounds.most_over(n - 1, 0.01, 0.99)


def test_a_million_requests_are_no_matter() -> None:
    assert 9_700 < bounds.most_over(1_000_000, 0.01, 0.99) < 10_000 < bounds.least_over(1_000_000, 0.01, 0.99) < 10_300
