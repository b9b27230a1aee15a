from __future__ import annotations

import numpy as np
import pytest

from tabserve_loadtest.schedule import Process, Segment, arrivals, share

SEGMENTS = (Segment(100, 20), Segment(400, 10), Segment(50, 10))


@pytest.mark.parametrize("process", ["poisson", "constant"])
def test_a_schedule_is_that_of_its_seed_and_keeps_its_rates(process: Process) -> None:
    offsets = arrivals(process, SEGMENTS, 5)

    assert np.array_equal(offsets, arrivals(process, SEGMENTS, 5))
    assert (np.diff(offsets) >= 0).all()
    counts = np.histogram(offsets, [0, 20, 30, 40])[0]
    assert counts == pytest.approx([2000, 4000, 500], rel=0.15)


def test_constant_arrivals_are_evenly_spaced() -> None:
    assert np.diff(arrivals("constant", [Segment(250, 4)], 0)) == pytest.approx(0.004)


def test_gaps_of_poisson_arrivals_are_exponential() -> None:
    gaps = np.diff(arrivals("poisson", [Segment(1000, 60)], 9))

    assert gaps.mean() == pytest.approx(0.001, rel=0.03)
    assert gaps.std() == pytest.approx(0.001, rel=0.03)
    assert (gaps > 0.002).mean() == pytest.approx(np.exp(-2), rel=0.05)


def test_generators_share_a_schedule_without_rest() -> None:
    offsets = arrivals("poisson", SEGMENTS, 1)
    shares = [share(offsets, index, 3) for index in range(3)]

    assert np.array_equal(np.sort(np.concatenate(shares)), offsets)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_no_rate_sends_nothing() -> None:
    assert len(arrivals("poisson", [Segment(0, 5)], 1)) == len(arrivals("poisson", [], 1)) == 0
