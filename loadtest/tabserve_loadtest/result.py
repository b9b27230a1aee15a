"""One scenario's measurements with what follows from them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tabserve_loadtest.measured import Measured
from tabserve_loadtest.verdict import Judgement, Verdict, overall, worst


class StockNumbers(msgspec.Struct, frozen=True):
    """What Locust's own statistics say of one of its entries, in milliseconds as it rounds them."""

    name: str
    requests: int
    p50: float
    p99: float
    p999: float
    longest: float


class Result(msgspec.Struct):
    """One scenario with its verdict.

    trusted: False where the generator was the limit; then nothing of the server's latency is reported.
    """

    scenario: str
    measured: Measured
    findings: list[Judgement]
    trusted: bool = True
    stock: list[StockNumbers] = []

    @property
    def verdict(self) -> Verdict:
        """Of all its findings."""
        return overall(self.findings)


def verdict(results: Sequence[Result]) -> Verdict:
    """Of the whole run."""
    return worst([result.verdict for result in results])
