"""A run as plain data, which the JSON report holds and the page shows."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from importlib.metadata import version

import msgspec

import tabserve
from tabserve_loadtest.latencies import Latencies, Quantile
from tabserve_loadtest.measured import Table
from tabserve_loadtest.objectives import Plan
from tabserve_loadtest.recording import Recording
from tabserve_loadtest.result import Result, StockNumbers, verdict
from tabserve_loadtest.schedule import Segment
from tabserve_loadtest.verdict import Judgement, Verdict

UNNAMED = "(unnamed)"


class Point(msgspec.Struct, frozen=True):
    """One second of a run: the requests meant to start in it, their outcomes, their latency in µs (0 without any)."""

    second: int
    requests: int
    outcomes: dict[str, int]
    p50: int
    p99: int


class Release(msgspec.Struct, frozen=True):
    """The answers of one release."""

    name: str
    requests: int
    share: float
    quantiles: list[Quantile]


class Section(msgspec.Struct, frozen=True):
    """One scenario, without latencies if the generator was the limit.

    curve: pairs (share of requests, their longest latency in µs). late: how late starts were, in µs.
    """

    scenario: str
    verdict: Verdict
    load: str
    findings: list[Judgement]
    quantiles: list[Quantile]
    figures: dict[str, float]
    outcomes: dict[str, int]
    errors: dict[str, int]
    releases: list[Release]
    late: list[Quantile]
    late_limit_ms: float
    busy: float
    closed: bool
    stock: list[StockNumbers]
    tables: tuple[Table, ...]
    limits: dict[str, float]
    seconds: list[Point]
    curve: list[tuple[float, int]]
    offered: tuple[Segment, ...]
    replicas: dict[str, list[tuple[float, int]]]


class Document(msgspec.Struct, frozen=True):
    """A run."""

    title: str
    verdict: Verdict
    exit_code: int
    created: str
    command: str
    versions: dict[str, str]
    confidence: float
    sections: list[Section]


def document(title: str, command: str, results: Sequence[Result], plan: Plan) -> Document:
    """The run as data. command: as it was typed."""
    found = verdict(results)
    return Document(
        title=title,
        verdict=found,
        exit_code=found.exit_code,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        command=command,
        versions={
            "python": platform.python_version(),
            "tabserve": tabserve.__version__,  # not from the metadata, because in the image tabserve is not installed
            **{name: version(name) for name in ("locust", "hdrhistogram")},
        },
        confidence=plan.confidence,
        sections=[_section(result, plan) for result in results],
    )


def _section(result: Result, plan: Plan) -> Section:
    measured, recording = result.measured, result.measured.recording
    told = recording if result.trusted else Recording()
    return Section(
        scenario=result.scenario,
        verdict=result.verdict,
        load=measured.load,
        findings=result.findings,
        quantiles=told.latencies.quantiles(plan.confidence),
        figures=measured.figures if result.trusted else {},
        outcomes=dict(recording.outcomes),
        errors=dict(recording.errors.most_common()),
        releases=_releases(told, plan.confidence),
        late=recording.late.quantiles(plan.confidence),
        late_limit_ms=plan.generator.late_ms,
        busy=recording.busy,
        closed=measured.closed,
        stock=result.stock if result.trusted else [],
        tables=measured.tables,
        limits=plan.scenarios[result.scenario].latency,
        seconds=[_point(number, told) for number in sorted(told.seconds)],
        curve=curve(told.latencies),
        offered=measured.offered,
        replicas=measured.replicas if result.trusted else {},
    )


def _releases(recording: Recording, confidence: float) -> list[Release]:
    total = sum(latencies.count for latencies in recording.releases.values())
    return [
        Release(name or UNNAMED, latencies.count, latencies.count / total, latencies.quantiles(confidence))
        for name, latencies in sorted(recording.releases.items())
    ]


def _point(number: int, recording: Recording) -> Point:
    second = recording.seconds[number]
    n = second.latencies.count
    p50, p99 = second.latencies.at_ranks([max(1, round(n * 0.5)), max(1, -(-n * 99 // 100))]) if n else (0, 0)
    return Point(number, second.outcomes.total(), dict(second.outcomes), p50, p99)


def curve(latencies: Latencies, points: int = 200) -> list[tuple[float, int]]:
    """The distribution as pairs (share of requests up to here, µs), denser towards its end."""
    n = latencies.count
    if not n:
        return []
    shares = [1 - 10 ** (-4 * step / points) for step in range(1, points)]
    ranks = sorted({max(1, min(n, round(share * n))) for share in shares} | {n})
    return [(rank / n, value) for rank, value in zip(ranks, latencies.at_ranks(ranks), strict=True)]


def encode(found: Document, indent: int = 2) -> bytes:
    """The document as JSON; indent 0 gives a single line."""
    return msgspec.json.format(msgspec.json.encode(found), indent=indent or -1)


def decode(data: bytes) -> Document:
    """A document from its JSON. Raises msgspec.DecodeError."""
    return msgspec.json.decode(data, type=Document)
