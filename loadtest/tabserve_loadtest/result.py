"""A scenario's measurements and their verdict."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tabserve_loadtest.measured import Measured
from tabserve_loadtest.verdict import Judgement, Verdict, overall, worst


class StockNumbers(msgspec.Struct, frozen=True):
    """One entry of Locust's own statistics, in its rounded milliseconds."""

    name: str
    requests: int
    p50: float
    p99: float
    p999: float
    longest: float


class Result(msgspec.Struct):
    """One scenario with its verdict.

    trusted: False if the generator was the limit; then the server's latency is not reported.
    """

    scenario: str
    measured: Measured
    findings: list[Judgement]
    trusted: bool = True
    stock: list[StockNumbers] = []

    @property
    def verdict(self) -> Verdict:
        """The verdict from all findings."""
        return overall(self.findings)


def verdict(results: Sequence[Result]) -> Verdict:
    """The verdict on the whole run."""
    return worst([result.verdict for result in results])
