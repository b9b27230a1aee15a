"""Compare two releases: whether the canary gets its share, and how their latencies differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabserve_loadtest import bounds
from tabserve_loadtest.measured import Measured
from tabserve_loadtest.recording import Recording
from tabserve_loadtest.schedule import Segment
from tabserve_loadtest.verdict import Judgement, Verdict

if TYPE_CHECKING:  # it imports gevent, which patches the process
    from tabserve_loadtest.bench import Bench

MIXED = " + "


def run(bench: Bench) -> Measured:
    """Uses `rate`, `seconds`, `rows` and `share`, the canary's; the canary is the release with fewer answers."""
    load = bench.objectives.load
    segments = (Segment(load.rate, load.seconds),)
    bench.warm_up()
    recording = bench.open(segments)
    return Measured(
        f"{load.rate:g} requests/s for {load.seconds:g} s, Poisson, {load.share:.0%} of them for the canary",
        recording,
        findings=(split(recording, load.share, bench.plan.confidence), _unmixed(recording)),
        offered=segments,
    )


def split(recording: Recording, share: float, confidence: float) -> Judgement:
    """Whether the number of answers from the canary is one that chance allows at this share."""
    counts = sorted(latencies.count for latencies in recording.releases.values())
    n, canary = sum(counts), counts[0] if len(counts) > 1 else 0
    low, high = bounds.most_over(n, share, confidence), bounds.least_over(n, share, confidence)
    text = f"{canary:,} of {n:,} answers, expected {low + 1:,} to {high - 1:,}"
    return Judgement(f"canary share = {share:g}", Verdict.PASS if low < canary < high else Verdict.FAIL, text)


def _unmixed(recording: Recording) -> Judgement:
    mixed = sum(latencies.count for name, latencies in recording.releases.items() if MIXED in name)
    text = f"{mixed:,} answers from a transformer and a predictor of different releases"
    return Judgement("releases never mix", Verdict.FAIL if mixed else Verdict.PASS, text)
