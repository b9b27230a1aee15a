"""A rollout as one HTML page: what was found, with its numbers, and all that it was found from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from tabserve.inference.metrics import LOGIT
from tabserve.pages.page import render
from tabserve.rollout import charts, status
from tabserve.rollout.checks import BOUNDS
from tabserve.rollout.compare import DELTAS, Copies
from tabserve.rollout.evidence import rate_interval, ratio_interval
from tabserve.rollout.judging import copies_of, ledger_of
from tabserve.rollout.ledger import Ledger
from tabserve.rollout.scrape import Tally
from tabserve.rollout.state import State, Step

ALPHA = 0.05
"""One minus the confidence of the intervals that are shown."""
_SAID = {
    "wait": ("Waiting", "quiet"),
    "watch": ("Watching stable", "quiet"),
    "shadow": ("Shadowing", "quiet"),
    "step": ("Under way", "quiet"),
    "held": ("On", "PASS"),
    "back": ("Taken back", "FAIL"),
    "undecided": ("Undecided", "TOO"),
}
_Events = Callable[[Tally], float]


class Check(NamedTuple):
    """A row on the checks: counts as texts, how many times stable's rate the canary's is, and the evidence."""

    name: str
    event: str
    canary: str
    stable: str
    ratio: str
    evidence: str
    needed: str
    part: float
    enough: bool


class Share(NamedTuple):
    """A decision at both slots: counts, and shares from 0 to 1."""

    name: str
    canary: float
    stable: float
    ours: float
    theirs: float
    ratio: str


def page(state: State) -> str:
    """The page's HTML."""
    ledger, copies = ledger_of(state), copies_of(state)
    rows = status.table(ledger)
    steps = [step for step in state.counted if step.canary.requests + step.stable.requests]
    return render(
        "rollout.html",
        state=state,
        data=state.text().replace("<", "\\u003c"),
        said=_SAID[state.phase],
        summary=summary(state, ledger),
        told=_plain(state.told.partition(": ")[2] if state.phase in ("back", "held", "undecided") else state.told),
        checks=[_check(ledger, row, steps) for row in rows if not row.check.startswith("budget")],
        budgets=[_budget(ledger, row) for row in rows if row.check.startswith("budget")],
        decisions=shares(ledger, steps),
        copies=copies,
        agreement=agreement(copies),
        charts=_charts(state, ledger),
        shadow_charts=_shadow_charts(copies),
        colours=charts.budget_colours(list(ledger.budgets)),
        minutes=minutes,
        moment=_moment,
        plain=_plain,
        count=_count,
    )


def summary(state: State, ledger: Ledger) -> str:
    """How far it has come, in a sentence."""
    canary, stable, pairs = ledger.canary.requests, ledger.stable.requests, ledger.pairs.pairs
    parts = [f"{_count(canary + stable)} requests, {_count(canary)} of them at the canary" if canary else ""]
    parts.append(f"{_count(pairs)} pairs of answers" if pairs else "")
    begun = next((change.at for change in state.changes if change.phase in ("shadow", "step")), state.seconds)
    ended = state.changes[-1].at if state.phase in ("back", "undecided") else state.seconds
    return " and ".join(filter(None, [f"after {minutes(ended - begun)}", ", ".join(filter(None, parts))]))


def agreement(copies: Copies) -> tuple[float, float, float] | None:
    """The share of requests that both slots decided alike, and its bounds; None if they decided nothing."""
    if not copies.decided:
        return None
    low, high = rate_interval(copies.different, copies.decided, ALPHA)
    return 1 - copies.different / copies.decided, 1 - high, 1 - low


def shares(ledger: Ledger, steps: Sequence[Step]) -> list[Share]:
    """The decisions of first rows at both slots."""
    ours, theirs = (sum(slot.decisions.values()) for slot in (ledger.canary, ledger.stable))
    names = sorted({*ledger.canary.decisions, *ledger.stable.decisions})
    found = []
    for name in names:
        canary, stable = (slot.decisions.get(name, 0) for slot in (ledger.canary, ledger.stable))
        ratio = _ratio(steps, partial(_decided, name))
        found.append(Share(name, canary, stable, canary / max(ours, 1), stable / max(theirs, 1), ratio))
    return found


def _decided(name: str, tally: Tally) -> float:
    return tally.decisions.get(name, 0)


def minutes(seconds: float) -> str:
    """A time in words."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _check(ledger: Ledger, row: status.Row, steps: Sequence[Step]) -> Check:
    at = status.most(ledger, row.check)
    part = min(max(row.log / math.log(row.needed), 0.0), 1.0)
    texts = (row.check, _plain(row.event), row.canary, row.stable, _ratio_of(ledger, row.check, at, steps))
    return Check(*texts, evidence(row.log), f"{row.needed:,.0f}", part, row.log >= math.log(row.needed))


def _ratio_of(ledger: Ledger, check: str, at: int, steps: Sequence[Step]) -> str:
    """How many times stable's rate of the event at a place the canary's is, with its bounds."""
    pairs = ledger.pairs
    if check in ("errors", "refused") and at:
        name = "failed" if check == "errors" else "refused"
        return _bounds([(0.5, getattr(pairs, f"canary_{name}"), getattr(pairs, f"stable_{name}"))])
    events: dict[str, _Events] = {
        "errors": lambda tally: tally.errors,
        "refused": lambda tally: tally.refused,
        "latency": lambda tally: float(tally.slower[at]),
        "decisions": lambda tally: _decided(ledger.decisions[at], tally),
        "scores": lambda tally: float(tally.scores[at + 1 :].sum()),
    }
    return _ratio(steps, events[check]) if check in events else ""


def _ratio(steps: Sequence[Step], events: _Events) -> str:
    """The same from the events at each weight."""
    compared = [step for step in steps if 0 < step.weight < 100]
    return _bounds([(step.weight / 100, events(step.canary.tally()), events(step.stable.tally())) for step in compared])


def _bounds(steps: Sequence[tuple[float, float, float]]) -> str:
    if not sum(ours + theirs for _, ours, theirs in steps):
        return ""
    low, high = ratio_interval(steps, ALPHA)
    return f"{_short(low)} to {_short(high)}" if high < 1000 else f"over {_short(low)}"


def _budget(ledger: Ledger, row: status.Row) -> tuple[str, ...]:
    """The name, the bound, what was seen, the rate's bounds, the proof, and whether it is enough."""
    name, slot, pairs = row.check.removeprefix("budget of "), ledger.since[0], ledger.pairs
    over = float(slot.slower[BOUNDS.index(ledger.rules.slow_over)])
    counted = {"errors": (slot.errors, slot.requests), "slow": (over, slot.timed)}
    events, trials = counted.get(name, (pairs.different, pairs.decided))
    low, high = rate_interval(events, trials, ALPHA)
    proof = f"{evidence(row.log)} of {row.needed:,.0f}"
    done = "proven" if row.log >= math.log(row.needed) else "not yet"
    return name, row.event, row.canary, f"{low:.2%} to {high:.2%}" if trials else "", proof, done


def _charts(state: State, ledger: Ledger) -> dict[str, str]:
    """The charts of requests that clients waited for, by name."""
    rules = ledger.rules
    made = {"timeline": charts.timeline(state.history, state.changes, state.seconds, -math.log(rules.false_rollback))}
    if state.history:
        made["proofs"] = charts.proofs(state.history, state.seconds, -math.log(rules.false_advance))
    slots = {charts.FIRST: ledger.canary, charts.SECOND: ledger.stable}
    if any(slot.timed for slot in slots.values()):
        slower = {colour: (slot.slower.tolist(), slot.timed) for colour, slot in slots.items()}
        made["latency"] = charts.latencies(slower, (rules.slow_over, rules.slow))
    ours, theirs = (slot.scores / max(slot.scores.sum(), 1) for slot in slots.values())
    if ours.any() or theirs.any():
        names = [f"{bound:g}" for bound in (0, *LOGIT)]
        made["scores"] = charts.histogram("first scores", names, ours.tolist(), theirs.tolist())
    return made


def _shadow_charts(copies: Copies) -> dict[str, str]:
    made = {}
    if copies.scored:
        last = max(at for at, count in enumerate(copies.deltas) if count)
        names = ["none", *(f"≤ {bound:g}" for bound in DELTAS[1:]), "more"][: last + 1]
        counts = [count / copies.scored for count in copies.deltas[: last + 1]]
        made["deltas"] = charts.histogram("differences of scores", names, counts)
    if copies.asked:
        seconds = {charts.FIRST: copies.canary_seconds, charts.SECOND: copies.stable_seconds}
        made["latency"] = charts.latencies({colour: _slower(bins) for colour, bins in seconds.items()})
    return made


def _slower(bins: Sequence[int]) -> tuple[list[float], float]:
    """How many took longer than each bound, of how many."""
    return (sum(bins) - np.cumsum(bins)[:-1]).tolist(), sum(bins)


def evidence(log: float) -> str:
    """A number in a few digits, from its logarithm; what is next to nothing is not told exactly."""
    if log < math.log(0.001):
        return "under 0.001"
    return status.number(log) if log < math.log(1e6) else charts.power_of_ten(round(log / math.log(10)))


def _short(number: float) -> str:
    return f"{number:.2f}" if number < 10 else f"{number:,.0f}"


def _moment(text: str) -> str:
    return text.replace("T", " ").replace("+00:00", " UTC")


def _plain(text: str) -> str:
    return text.replace("`", "")


def _count(number: float) -> str:
    return f"{number:,.0f}"
