"""Say in words and numbers what the counts of a canary prove so far."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tabserve.arrays import Array
from tabserve.inference.metrics import LOGIT
from tabserve.rollout.checks import BOUNDS, CHECKS
from tabserve.rollout.ledger import Ledger

_MILLION = math.log(1e6)
"""The logarithm above which a number is written as a power of ten."""
HEAD = ("check", "event with the most evidence", "canary", "stable", "evidence", "of")


class Row(NamedTuple):
    """What was counted of one check, or of one budget, as texts.

    log: the evidence, or the proof, as a logarithm. needed: the evidence that decides.
    """

    check: str
    event: str
    canary: str
    stable: str
    log: float
    needed: float

    def cells(self) -> tuple[str, ...]:
        """The row below HEAD."""
        return (*self[:4], number(self.log), f"{self.needed:,.0f}")


def sentence(ledger: Ledger) -> str:
    """The verdict with its reason, for a person."""
    verdict = ledger.verdict()
    if verdict == "back":
        check = ledger.judge.strongest()
        once = number(ledger.peak)
        return f"Back: {_compared(ledger, check)}. A release as good as stable shows this once in {once} rollouts."
    if not ledger.canary.requests or not ledger.stable.requests:
        return "Not yet: one of the slots has answered no request of the split."
    if verdict == "on":
        return "On: the budgets are proven, and nothing speaks against the canary enough to take it back."
    lacking = ledger.lacking()
    if lacking:
        return f"Not yet: too few requests prove the budget of {' and '.join(lacking)}."
    return "Not yet: the mix of decisions or scores is in doubt."


def table(ledger: Ledger) -> list[Row]:
    """What was counted, the evidence and the proofs."""
    rows = []
    for check, counts in ledger.totals().items():
        at = most(ledger, check)
        canary = _ratio(counts.canary_events, counts.canary, at)
        stable = _ratio(counts.stable_events, counts.stable, at)
        if check == "disagreement":
            stable = ""
        if check == "split":
            canary, stable = f"{counts.canary_events[0]:g}", f"{counts.stable_events[0]:g}"
        log = float(ledger.judge.of(check))
        rows.append(Row(check, _event(ledger, check, at), canary, stable, log, ledger.rules.needed(check)))
    return [*rows, *_budgets(ledger)]


def not_judged(ledger: Ledger) -> list[str]:
    """What was not judged, and why."""
    counted = ledger.totals()
    found = []
    if not ledger.shadowed:
        found.append("disagreement: only a shadow that asks both slots the same shows it.")
    elif not ledger.pairs.decided:
        found.append("disagreement: no two decisions on the same request were there to compare.")
    if ledger.shadowed and not ledger.canary.requests:
        return [*found, "what compares answers to clients: the canary has given none yet."]
    if "decisions" not in counted:
        found.append("decisions: the model has none, or the services are of a version that does not count them.")
    if "scores" not in counted:
        found.append("scores: they are no probabilities, or there were none.")
    if "split" not in counted:
        found.append("split: the canary's share was not given (--percent).")
    known = set(ledger.decisions)
    later = sorted({*ledger.canary.decisions, *ledger.stable.decisions} - known)
    found += [f"the decision `{name}`: it came after the first look." for name in later]
    return found


def number(log: float) -> str:
    """A number in a few digits, from its logarithm."""
    if abs(log) > _MILLION:
        return f"10^{log / math.log(10):.0f}"
    value = math.exp(log)
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _compared(ledger: Ledger, check: str) -> str:
    counts, at = ledger.totals()[check], most(ledger, check)
    event = _event(ledger, check, at)
    if check == "split":
        share = counts.canary_events[0] / (counts.canary_events[0] + counts.stable_events[0])
        return f"{share:.1%} of the requests were answered by the canary, which gets {ledger.percent:g} %"
    canary = _ratio(counts.canary_events, counts.canary, at)
    if check == "disagreement":
        return f"{CHECKS[check].title}: {canary} pairs"
    stable = _ratio(counts.stable_events, counts.stable, at)
    return f"{CHECKS[check].title}{event and ' ' + event}: {canary} at the canary, {stable} at stable"


def most(ledger: Ledger, check: str) -> int:
    """The position of the event with the most evidence, the last of equal ones."""
    logs = ledger.judge.logs.get(check)
    return 0 if logs is None else len(logs) - 1 - int(np.argmax(logs.max(axis=-1)[::-1]))


def _event(ledger: Ledger, check: str, at: int) -> str:
    if check == "latency":
        return f"over {BOUNDS[at]:g} s"
    if check == "decisions":
        return f"`{ledger.decisions[at]}`"
    if check == "scores":
        return f"over {LOGIT[at]:g}"
    if check == "split":
        return f"{ledger.percent:g} % to the canary"
    return "by one slot alone" if at else ""


def _ratio(events: Array, requests: Array, at: int) -> str:
    of = float(np.broadcast_to(requests, events.shape)[at])
    return f"{events[at]:g} of {of:g}" + (f" ({events[at] / of:.2%})" if of else "")


def _budgets(ledger: Ledger) -> Iterator[Row]:
    rules, canary, needed = ledger.rules, ledger.since[0], 1 / ledger.rules.false_advance
    bounds = {"errors": f"under {rules.errors:.2%}", "slow": f"under {rules.slow:.2%} over {rules.slow_over:g} s"}
    over = canary.slower[BOUNDS.index(rules.slow_over)]
    seen = {"errors": (canary.errors, canary.requests), "slow": (over, canary.timed)}
    if ledger.shadowed:
        bounds["disagreement"] = f"under {rules.disagreement:.2%}"
        seen["disagreement"] = (ledger.pairs.different, ledger.pairs.decided)
    for name, (events, of) in seen.items():
        counted = _ratio(np.array([events]), np.array([of]), 0)
        yield Row(f"budget of {name}", bounds[name], counted, "", float(ledger.budgets[name].log()), needed)
