"""What a scenario hands back: a recording, figures of its own, and what to show of them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tabserve_loadtest.latencies import Latencies
from tabserve_loadtest.objectives import Objectives, fraction
from tabserve_loadtest.recording import ERRORS, Recording, Second
from tabserve_loadtest.schedule import Segment
from tabserve_loadtest.verdict import Judgement, milliseconds


class Table(msgspec.Struct, frozen=True):
    """A table of the report: a title, the columns' names and the rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Measured(msgspec.Struct):
    """One scenario's measurements.

    load: in words, what was sent. figures: by name; `at_least` and `at_most` of the objectives are judged on them.
    closed: whether users waited for answers. refusals_allowed: whether a refusal is an answer and no error.
    findings: verdicts of the scenario's own. offered: segments of the open loop, for the page.
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

    None where that is not so to the end.
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
    """Requests per second that ended so, over those seconds of the run."""
    found = [recording.seconds[number].outcomes[outcome] for number in seconds if number in recording.seconds]
    return sum(found) / max(1, len(seconds))


def p50_and_p99(latencies: Latencies) -> tuple[str, ...]:
    """For a table's row: in words, `none` where nothing was recorded."""
    quantiles = (latencies.quantile(q, 0.99) for q in (0.5, 0.99))
    return tuple(milliseconds(quantile.value) if quantile else "none" for quantile in quantiles)
