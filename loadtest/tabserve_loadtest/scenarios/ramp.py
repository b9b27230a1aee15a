"""Find the capacity: the highest rate that holds the objectives, between one that held and one that did not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tabserve_loadtest import bounds
from tabserve_loadtest.measured import Measured, Table, p50_and_p99
from tabserve_loadtest.objectives import Objectives, fraction
from tabserve_loadtest.recording import Recording
from tabserve_loadtest.schedule import Segment
from tabserve_loadtest.verdict import Judgement, Verdict, judge, overall, trust

if TYPE_CHECKING:  # it imports gevent, which patches the process
    from tabserve_loadtest.bench import Bench

PAUSE_SECONDS = 1.0
MARGIN = 1.5
STEPS = 20


class Step(msgspec.Struct, frozen=True):
    """One rate that was tried."""

    rate: float
    recording: Recording
    verdict: Verdict


def run(bench: Bench) -> Measured:
    """Uses `rate` (of the first step), `factor`, `most`, `precision`, `seconds` (of a step) and `rows`.

    Figures: capacity_rps, the highest rate that held; broken_rps, the lowest that did not.
    """
    bench.warm_up()
    load, steps = bench.objectives.load, list[Step]()
    rate: float | None = load.rate
    while rate is not None and len(steps) < STEPS:
        steps.append(_step(bench, rate))
        rate = following(steps, load.factor, load.most, load.precision)
    held = [step for step in steps if step.verdict is Verdict.PASS]
    best = max(held, key=lambda step: step.rate, default=steps[0])
    return Measured(
        f"Poisson steps of {load.seconds:g} s or more from {load.rate:g} requests/s, then between the nearest two",
        best.recording,
        figures=_figures(steps),
        tables=(_table(steps),),
        findings=_unbounded(steps, load.most),
        offered=(Segment(best.rate, best.recording.elapsed),),
    )


def following(steps: list[Step], factor: float, most: float, precision: float) -> float | None:
    """The next rate to try, None if the search is over."""
    held = max((step.rate for step in steps if step.verdict is Verdict.PASS), default=0.0)
    broken = min((step.rate for step in steps if step.verdict is not Verdict.PASS), default=0.0)
    if not broken:
        return held * factor if held * factor <= most else None
    if not held or broken <= held * precision:
        return None
    return float((held * broken) ** 0.5)


def _step(bench: Bench, rate: float) -> Step:
    objectives, confidence = bench.objectives, bench.plan.confidence
    # Enough requests to prove p99 even with some over the limit.
    needed = max((bounds.least_requests(0, 1 - fraction(name), confidence) for name in objectives.latency), default=1)
    seconds = max(objectives.load.seconds, MARGIN * needed / rate)
    recording = bench.open([Segment(rate, seconds)])
    verdict = overall([*trust(recording, bench.plan.generator, False), *_judged(recording, objectives, confidence)])
    bench.tell(f"{rate:.4g} requests/s: {verdict.value}")
    bench.pause(PAUSE_SECONDS)
    return Step(rate, recording, verdict)


def _judged(recording: Recording, objectives: Objectives, confidence: float) -> list[Judgement]:
    return judge(recording, {}, msgspec.structs.replace(objectives, at_least={}, at_most={}), confidence)


def _figures(steps: list[Step]) -> dict[str, float]:
    held = [step.rate for step in steps if step.verdict is Verdict.PASS]
    broken = [step.rate for step in steps if step.verdict is not Verdict.PASS]
    return {"capacity_rps": max(held, default=0.0)} | ({"broken_rps": min(broken)} if broken else {})


def _unbounded(steps: list[Step], most: float) -> tuple[Judgement, ...]:
    """The findings if the search ended for a reason other than the server."""
    broken = [step for step in steps if step.verdict is not Verdict.PASS]
    lowest = min(broken, key=lambda step: step.rate, default=None)
    if lowest is not None and lowest.verdict is Verdict.INVALID:
        text = f"the generator was the limit at {lowest.rate:.4g} requests/s; the server holds what is below, or more"
        return (Judgement("the server breaks first", Verdict.INVALID, text),)
    if lowest is None:
        return (Judgement("capacity has an upper bound", Verdict.PASS, f"none: it holds up to {most:g} requests/s"),)
    return ()


def _table(steps: list[Step]) -> Table:
    return Table(
        "Rates tried",
        ("requests/s", "requests", "p50", "p99", "not ok", "verdict"),
        tuple(_row(step) for step in sorted(steps, key=lambda step: step.rate)),
    )


def _row(step: Step) -> tuple[str, ...]:
    outcomes, latencies = step.recording.outcomes, step.recording.latencies
    bad = outcomes.total() - outcomes["ok"]
    return (f"{step.rate:.4g}", f"{outcomes.total():,}", *p50_and_p99(latencies), f"{bad:,}", step.verdict.value)
