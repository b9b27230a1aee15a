"""The share of a constant load that each release answers."""

from __future__ import annotations

from statistics import NormalDist

from tests.cluster import chart
from tests.cluster.load import Seen
from tests.cluster.testbed import api

FEW = 30


def wait_for(seen: Seen, requests: int) -> list[str]:
    """Wait for this many more answers; returns the releases that they came from."""
    start = len(seen.answers)
    api.wait("answers", lambda: "" if len(seen.answers) - start >= requests else "too few", 180, chart.explain)
    return [answer.transformer for answer in seen.answers[start:]]


def wait_for_share(seen: Seen, release: str) -> None:
    """Wait until a release gets some of the requests."""
    api.wait(f"a share of {release}", lambda: "" if release in wait_for(seen, FEW) else "none", 90, chart.explain)


def wait_until_only(seen: Seen, release: str) -> None:
    """Wait until a release gets every request."""
    api.wait(f"all to {release}", lambda: "" if {*wait_for(seen, FEW)} == {release} else "shared", 90, chart.explain)


def bounds(requests: int, share: float, confidence: float = 0.999) -> tuple[float, float]:
    """The counts between which a binomial share lies with this confidence (normal approximation)."""
    spread = NormalDist().inv_cdf(0.5 + confidence / 2) * (requests * share * (1 - share)) ** 0.5
    return requests * share - spread, requests * share + spread
