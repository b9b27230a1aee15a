"""The result of a scenario: a recording, its own figures, and tables to show."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tabserve_loadtest.latencies import Latencies
from tabserve_loadtest.objectives import Objectives, fraction
from tabserve_loadtest.recording import ERRORS, Recording, Second
from tabserve_loadtest.schedule import Segment
from tabserve_loadtest.verdict import Judgement, milliseconds


class Table(msgspec.Struct, frozen=True):
    """A table for the report: a title, the columns' names and the rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Measured(msgspec.Struct):
    """One scenario's measurements.

    load: what was sent, in words. figures: by name; the objectives' `at_least` and `at_most` are judged on them.
    closed: whether users waited for answers. refusals_allowed: whether a refusal counts as an answer, not as an error.
    findings: the scenario's own verdicts. offered: segments of the open loop, for the page.
    replicas: by workload, (second, ready replicas) at each change.
    """

    load: str
    recording: Recording
    figures: dict[str, float] = {}
    tables: tuple[Table, ...] = ()
    closed: bool = False
    refusals_allowed: bool = False
    findings: tuple[Judgement, ...] = ()
    offered: tuple[Segment, ...] = ()
    replicas: dict[str, list[tuple[float, int]]] = {}


def recovery_seconds(recording: Recording, after: float, objectives: Objectives) -> float | None:
    """Seconds after `after` until 95 % of each later second's requests are answered right and within the limits.

    None if that does not hold to the end.
    """
    later = sorted(number for number in recording.seconds if number >= after)
    bad = [number for number in later if not _well(recording.seconds[number], objectives)]
    if not later or (bad and bad[-1] == later[-1]):
        return None
    return float(bad[-1] + 1 - after) if bad else 0.0


def _well(second: Second, objectives: Objectives) -> bool:
    limit = max(objectives.latency.items(), key=lambda item: fraction(item[0]))[1] if objectives.latency else None
    total = second.outcomes.total()
    bad = sum(second.outcomes[kind] for kind in (*ERRORS, "refused"))
    slow = second.latencies.over(limit * 1000) if limit else 0
    return bool(total) and max(bad, slow) <= 0.05 * total


def rate_of(recording: Recording, outcome: str, seconds: Sequence[int]) -> float:
    """Requests per second with this outcome, over the given seconds of the run."""
    found = [recording.seconds[number].outcomes[outcome] for number in seconds if number in recording.seconds]
    return sum(found) / max(1, len(seconds))


def p50_and_p99(latencies: Latencies) -> tuple[str, ...]:
    """The p50 and p99 as text for a table's row, `none` if nothing was recorded."""
    quantiles = (latencies.quantile(q, 0.99) for q in (0.5, 0.99))
    return tuple(milliseconds(quantile.value) if quantile else "none" for quantile in quantiles)
