"""All that is known of one canary so far: the counts of both slots, the evidence in them, and the verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from operator import add
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from msgspec.structs import asdict

from tabserve.arrays import Array
from tabserve.rollout.checks import BOUNDS, Budget, Judge, Rules, above
from tabserve.rollout.compare import NO_PAIRS, Pairs
from tabserve.rollout.dispersion import dispersion
from tabserve.rollout.errors import RolloutError
from tabserve.rollout.evidence import Counts
from tabserve.rollout.scrape import Scrape, Series, Tally, tally
from tabserve.rollout.state import Counted, Evidence, Step

Verdict: TypeAlias = Literal["back", "on", "not yet"]
FORMAT = 1


class Ledger:
    """The counts and the evidence of a canary, added up tick by tick.

    percent: the canary's share of the traffic by the route; None if unknown, and then the split is not judged.
    dispersion: of stable's pods in their errors; None if unknown, and then the evidence of errors is not discounted.
    block: ticks after which usual events are compared.
    shadowed: whether a shadow asks both slots the same. Then disagreement is judged and has a budget, and requests that
    one slot alone refuses or fails to answer are one more event of those checks.
    """

    def __init__(
        self,
        rules: Rules,
        percent: float | None = None,
        dispersion: float | None = None,
        *,
        block: int = 1,
        shadowed: bool = False,
    ) -> None:
        self.rules = rules
        self.percent = percent
        self.dispersion = dispersion
        self.judge = Judge(rules, block, {} if dispersion is None else {"errors": np.array(dispersion)})
        self.budgets = _live_budgets(rules)
        self.shadowed = shadowed
        if shadowed:
            self.budgets["disagreement"] = Budget(rules.disagreement, rules.false_advance)
        self.canary, self.stable, self.pairs = Tally(), Tally(), Pairs()
        self.since = Tally(), Tally()
        """The counts of canary and stable at the present share."""
        self.peak = 0.0
        """The most evidence that there ever was, as a logarithm; later ticks do not take it away."""
        self.decisions: list[str] = []
        """The decisions that are judged: those that either slot knew at the first tick in which any were known."""

    def turn(self, percent: float | None) -> None:
        """Go on at another share: its budgets are to be proven anew, and the evidence so far stays."""
        self.percent = percent
        self.budgets |= _live_budgets(self.rules)
        self.since = Tally(), Tally()
        self.judge.drop()

    def keep(self) -> Evidence:
        """The evidence and the proofs so far, to be kept."""
        logs: dict[str, list[list[float]]] = {check: found.tolist() for check, found in self.judge.logs.items()}
        budgets: dict[str, list[float]] = {name: budget.logs.tolist() for name, budget in self.budgets.items()}
        return Evidence(self.peak, self.percent, self.dispersion, self.decisions, logs, budgets)

    def resume(self, kept: Evidence, counted: Sequence[Step]) -> None:
        """Go on from what was kept, and from the counts at each share so far."""
        self.peak, self.decisions = kept.peak, kept.decisions
        self.judge.logs = {check: np.array(logs) for check, logs in kept.logs.items()}
        for name, budget in self.budgets.items():
            budget.logs = np.array(kept.budgets[name])
        for step in counted:
            self.since = step.canary.tally(), step.stable.tally()
            self.canary, self.stable = _sum(self.canary, self.since[0]), _sum(self.stable, self.since[1])

    def add(
        self, canary: Tally, stable: Tally, pairs: Pairs = NO_PAIRS, *, cold: bool = False, steady: bool = True
    ) -> None:
        """Add what both slots counted in one tick, and the shadow.

        cold: latencies are not to be compared. steady: the counts of both slots are whole, so the shares are.
        """
        if not self.decisions:
            self.decisions = sorted({*canary.decisions, *stable.decisions})
        counts = self._counts(canary, stable, pairs)
        if cold:
            del counts["latency"]
        if not steady:
            counts.pop("split", None)
        self.judge.add(counts)
        self.peak = max(self.peak, float(self.judge.together()))
        self.budgets["errors"].add(np.array(canary.errors), np.array(canary.requests))
        over = canary.slower[BOUNDS.index(self.rules.slow_over)]
        self.budgets["slow"].add(np.array(over), np.array(canary.timed))
        if self.shadowed:
            self.budgets["disagreement"].add(np.array(pairs.different), np.array(pairs.decided))
        self.canary, self.stable = _sum(self.canary, canary), _sum(self.stable, stable)
        self.since = _sum(self.since[0], canary), _sum(self.since[1], stable)
        self.pairs = Pairs(*map(add, self.pairs, pairs))

    def totals(self) -> dict[str, Counts]:
        """The counts [events] of all ticks by check; of the split, those at the present share."""
        found = self._counts(self.canary, self.stable, self.pairs)
        return found | {name: each for name, each in self._counts(*self.since, NO_PAIRS).items() if name == "split"}

    def _counts(self, canary: Tally, stable: Tally, pairs: Pairs) -> dict[str, Counts]:
        requests = (canary.requests, stable.requests)
        found = {
            "errors": _pair([canary.errors], [stable.errors], *requests),
            "refused": _pair([canary.refused], [stable.refused], *requests),
            "latency": _pair(canary.slower, stable.slower, canary.timed, stable.timed),
        }
        if self.decisions and self.rules.decisions is not None:
            ours, theirs = ([slot.decisions.get(name, 0) for name in self.decisions] for slot in (canary, stable))
            found["decisions"] = _pair(ours, theirs, sum(ours), sum(theirs))
        if self.rules.scores is not None and (self.canary.scores.any() or canary.scores.any()):
            found["scores"] = _pair(
                above(canary.scores), above(stable.scores), canary.scores.sum(), stable.scores.sum()
            )
        if self.shadowed:
            for check, alone, other in (
                ("errors", pairs.canary_failed, pairs.stable_failed),
                ("refused", pairs.canary_refused, pairs.stable_refused),
            ):
                found[check] = _joined(found[check], _pair([alone], [other], pairs.asked, pairs.asked))
            found["disagreement"] = _pair([pairs.different], [0], pairs.decided, 0)
        if self.percent is not None:
            share = self.percent / 100
            found["split"] = Counts(*(np.array([value]) for value in (requests[0], share, requests[1], 1 - share)))
        return found

    def verdict(self) -> Verdict:
        """Back, if the evidence of all checks is enough; on, if the budgets are proven and no mix is in doubt."""
        if self.peak >= -np.log(self.rules.false_rollback):
            return "back"
        doubted = any(self.judge.of(check) >= -np.log(self.rules.false_advance) for check in ("decisions", "scores"))
        return "on" if not self.lacking() and not doubted else "not yet"

    def lacking(self) -> list[str]:
        """The budgets that are not proven; that of disagreement is not asked for where a model decides nothing."""
        exempt = {"disagreement"} if self.pairs.pairs and not self.pairs.decided else set()
        return [name for name, budget in self.budgets.items() if name not in exempt and not budget.proven()]


class Looks:
    """A ledger and the last look at each pod, which may be kept in a file between two looks."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.looks: dict[str, Scrape] = {}

    def save(self, path: Path) -> None:
        """Write it to a file, which is replaced as a whole. Raises RolloutError."""
        ledger = self.ledger
        looks = {
            source: [look.start, [[*series, value] for series, value in look.series.items()]]
            for source, look in self.looks.items()
        }
        content = {
            "format": FORMAT,
            "rules": list(ledger.rules),
            **asdict(ledger.keep()),
            "canary": asdict(Counted.of(ledger.canary)),
            "stable": asdict(Counted.of(ledger.stable)),
            "looks": looks,
        }
        fresh = path.with_name(path.name + ".new")
        try:
            fresh.write_text(json.dumps(content))
            fresh.replace(path)
        except OSError as error:
            raise RolloutError(str(path), f"cannot be written ({error.strerror})", "Name another file.") from error

    @classmethod
    def load(cls, path: Path, rules: Rules, percent: float | None) -> Looks:
        """Read what `save` wrote. Raises RolloutError if it did not, or with other rules or another share."""
        remedy = f"Remove {path} to start again, or name another file."
        try:
            content = json.loads(path.read_text())
            if content["format"] != FORMAT:
                raise RolloutError(str(path), f"expected format {FORMAT}, got {content['format']!r}", remedy)
            if (content["rules"], content["percent"]) != (list(rules), percent):
                raise RolloutError(str(path), "was written with other rules, or at another share", remedy)
            return cls._of(content, rules)
        except RolloutError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RolloutError(str(path), f"is no state of a rollout ({type(error).__name__})", remedy) from None

    @classmethod
    def _of(cls, content: dict[str, Any], rules: Rules) -> Looks:
        found = cls(Ledger(rules, content["percent"]))
        names = ("percent", "peak", "decisions", "logs", "budgets")
        kept = Evidence(dispersion=None, **{name: content[name] for name in names})
        canary, stable = (Counted(**content[slot]) for slot in ("canary", "stable"))
        found.ledger.resume(kept, [Step(0, canary, stable)])
        for source, (start, series) in content["looks"].items():
            found.looks[source] = Scrape(
                start, {(name, tuple((k, v) for k, v in labels)): value for name, labels, value in series}
            )
        return found


def differing(pods: Sequence[Sequence[Mapping[Series, float]]]) -> float | None:
    """What pods differ by in their errors, from what each counted in each minute; None for a single one."""
    if len(pods) < 2:
        return None
    found = [[tally([minute]) for minute in course] for course in pods]
    errors, requests = (
        np.array([[getattr(minute, name) for minute in course] for course in found]) for name in ("errors", "requests")
    )
    return float(dispersion(errors, requests))


def _live_budgets(rules: Rules) -> dict[str, Budget]:
    """The budgets of requests that clients wait for."""
    rates = {"errors": rules.errors, "slow": rules.slow}
    return {name: Budget(rate, rules.false_advance) for name, rate in rates.items()}


def _pair(ours: Array | list[float], theirs: Array | list[float], canary: float, stable: float) -> Counts:
    return Counts(np.asarray(ours, float), np.array([canary]), np.asarray(theirs, float), np.array([stable]))


def _joined(one: Counts, other: Counts) -> Counts:
    """Two events of one check, each with its own number of requests."""
    return Counts(*map(np.concatenate, zip(one, other, strict=True)))


def _sum(one: Tally, other: Tally) -> Tally:
    names = {*one.decisions, *other.decisions}
    return Tally(
        one.requests + other.requests,
        one.errors + other.errors,
        one.refused + other.refused,
        one.timed + other.timed,
        one.slower + other.slower,
        {name: one.decisions.get(name, 0) + other.decisions.get(name, 0) for name in names},
        one.scores + other.scores,
    )
