"""Judge measurements: PASS, FAIL, TOO FEW SAMPLES or INVALID."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

import msgspec

from tabserve_loadtest import bounds
from tabserve_loadtest.objectives import Generator, Objectives, fraction
from tabserve_loadtest.recording import ERRORS, Recording


class Verdict(Enum):
    """The verdict on a run; `exit_code` is the process's."""

    PASS = "PASS"
    FAIL = "FAIL"
    TOO_FEW = "TOO FEW SAMPLES"
    INVALID = "INVALID"

    @property
    def exit_code(self) -> int:
        """The exit code, 0, 1, 2 or 3."""
        return list(Verdict).index(self)


class Judgement(msgspec.Struct, frozen=True):
    """One objective, what was measured, and the verdict."""

    objective: str
    verdict: Verdict
    measured: str


def overall(findings: Sequence[Judgement]) -> Verdict:
    """The verdict on one scenario: INVALID comes before FAIL, and FAIL before TOO FEW SAMPLES."""
    order = (Verdict.INVALID, Verdict.FAIL, Verdict.TOO_FEW)
    found = {finding.verdict for finding in findings}
    return next((verdict for verdict in order if verdict in found), Verdict.PASS)


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on several scenarios: a broken objective in one counts, whatever happened to the others."""
    order = (Verdict.FAIL, Verdict.INVALID, Verdict.TOO_FEW)
    return next((verdict for verdict in order if verdict in verdicts), Verdict.PASS)


def judge(
    recording: Recording,
    figures: Mapping[str, float],
    objectives: Objectives,
    confidence: float,
    refusals_allowed: bool = False,
) -> list[Judgement]:
    """One finding per objective. figures: the scenario's own figures, which `at_least` and `at_most` name."""
    findings = [_errors(recording, objectives.error_rate, confidence, refusals_allowed)]
    findings += [_latency(recording, name, limit, confidence) for name, limit in objectives.latency.items()]
    for name, limit in objectives.at_least.items():
        findings.append(_figure(f"{name} ≥ {limit:g}", figures.get(name), lambda value, limit=limit: value >= limit))
    for name, limit in objectives.at_most.items():
        findings.append(_figure(f"{name} ≤ {limit:g}", figures.get(name), lambda value, limit=limit: value <= limit))
    return findings


def _latency(recording: Recording, name: str, limit_ms: float, confidence: float) -> Judgement:
    latencies, objective = recording.latencies, f"{name} ≤ {limit_ms:g} ms"
    share = 1 - fraction(name)
    n, over = latencies.count, latencies.over(limit_ms * 1000)
    quantile = latencies.quantile(1 - share, confidence)
    shown = f"{name} {milliseconds(quantile.value)}, " if quantile else ""
    return Judgement(objective, *_share(over, n, share, confidence, f"{shown}{over:,} of {n:,} took longer"))


def _share(over: int, n: int, share: float, confidence: float, shown: str) -> tuple[Verdict, str]:
    if n and over <= bounds.most_over(n, share, confidence):
        return Verdict.PASS, shown
    if n and over >= bounds.least_over(n, share, confidence):
        return Verdict.FAIL, shown
    needed = bounds.least_requests(over, share, confidence)
    return Verdict.TOO_FEW, f"{shown}; {confidence:.0%} confidence needs {needed:,} requests with no more than that"


def _errors(recording: Recording, limit: float, confidence: float, refusals_allowed: bool) -> Judgement:
    outcomes = recording.outcomes
    kinds = ERRORS if refusals_allowed else (*ERRORS, "refused")
    n, bad = outcomes.total(), sum(outcomes[kind] for kind in kinds)
    parts = ", ".join(f"{outcomes[kind]:,} {kind}" for kind in kinds if outcomes[kind])
    shown = f"{bad:,} of {n:,}" + (f": {parts}" if parts else "")
    if not n:
        return Judgement("errors", Verdict.TOO_FEW, "no request was sent")
    if outcomes["wrong"]:
        return Judgement("wrong answers = 0", Verdict.FAIL, shown)
    if limit:
        return Judgement(f"error_rate ≤ {limit:g}", *_share(bad, n, limit, confidence, shown))
    return Judgement("error_rate = 0", Verdict.FAIL if bad else Verdict.PASS, shown)


def _figure(objective: str, value: float | None, holds: object) -> Judgement:
    if value is None:
        return Judgement(objective, Verdict.TOO_FEW, "not measured")
    return Judgement(objective, Verdict.PASS if holds(value) else Verdict.FAIL, f"{value:.4g}")  # type: ignore[operator]


def trust(recording: Recording, limits: Generator, closed: bool) -> list[Judgement]:
    """INVALID findings if the generator was the limit, otherwise none. closed: users waited for answers."""
    outcomes = recording.outcomes
    total, dropped = outcomes.total(), outcomes["dropped"]
    findings = []
    late = recording.late.over(limits.late_ms * 1000)
    if late > limits.late_share * total:
        text = f"{late:,} of {total:,} requests started more than {limits.late_ms:g} ms late"
        findings.append(Judgement(f"late starts ≤ {limits.late_share:.3g}", Verdict.INVALID, text))
    if dropped > limits.dropped_share * total:
        text = f"{dropped:,} of {total:,} requests found no free user and were not sent: raise --users"
        findings.append(Judgement(f"dropped ≤ {limits.dropped_share:.3g}", Verdict.INVALID, text))
    if closed and recording.busy > limits.busy_share:
        text = f"it was busy {recording.busy:.0%} of the time: use --workers"
        findings.append(Judgement(f"generator busy ≤ {limits.busy_share:.0%}", Verdict.INVALID, text))
    return findings


def milliseconds(microseconds: float) -> str:
    """A latency with three significant digits, in ms."""
    return f"{float(f'{microseconds / 1000:.3g}'):g} ms"
