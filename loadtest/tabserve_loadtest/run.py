"""Run scenarios one after the other on one target, each with its findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from tabserve_loadtest.bench import Bench, BenchError
from tabserve_loadtest.measured import Measured
from tabserve_loadtest.recording import Recording
from tabserve_loadtest.result import Result
from tabserve_loadtest.scenarios import autoscale, canary, offline, overload, ramp, server, single_stream, spike
from tabserve_loadtest.verdict import Judgement, Verdict, judge, trust

Scenario: TypeAlias = Callable[[Bench], Measured]
SCENARIOS: Mapping[str, Scenario] = {
    "single-stream": single_stream.run,
    "server": server.run,
    "offline": offline.run,
    "ramp": ramp.run,
    "spike": spike.run,
    "overload": overload.run,
    "autoscale": autoscale.run,
    "canary": canary.run,
}
DEFAULT = ("single-stream", "server", "offline", "ramp", "spike", "overload")


def play(bench: Bench, scenarios: Sequence[str]) -> list[Result]:
    """Run the scenarios in order."""
    return [_play(bench, name) for name in scenarios]


def _play(bench: Bench, name: str) -> Result:
    bench.scenario = name
    try:
        measured = SCENARIOS[name](bench)
    except BenchError as error:
        lost = Judgement("all generators report", Verdict.INVALID, str(error))
        return Result(name, Measured("not finished", Recording()), [lost], trusted=False)
    plan, recording = bench.plan, measured.recording
    distrust = trust(recording, plan.generator, measured.closed)
    findings = distrust or [
        *judge(recording, measured.figures, bench.objectives, plan.confidence, measured.refusals_allowed),
        *measured.findings,
    ]
    result = Result(name, measured, findings, not distrust, bench.stock_numbers())
    bench.tell(result.verdict.value)
    return result
