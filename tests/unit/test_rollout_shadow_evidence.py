"""What a shadow counts speaks against a canary before it has answered a single client."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from tabserve.rollout import status
from tabserve.rollout.checks import Rules
from tabserve.rollout.compare import Pairs
from tabserve.rollout.evidence import Counts, log_mean
from tabserve.rollout.ledger import Ledger
from tabserve.rollout.scrape import Tally


def judged(ticks: int, **counted: int) -> Ledger:
    """A ledger after this many ticks of 100 copies each."""
    ledger = Ledger(Rules(), 0, shadowed=True)
    pairs = Pairs(**{"asked": 100, "pairs": 100, "decided": 100, **counted})
    for _ in range(ticks):
        ledger.add(Tally(), Tally(), pairs)
    return ledger


def test_different_decisions_take_a_canary_back() -> None:
    ledger = judged(5, different=10)
    rows = {row.check: row for row in status.table(ledger)}

    assert ledger.verdict() == "back"
    assert status.sentence(ledger).startswith("Back: different answers: 50 of 500 (10.00%) pairs. A release")
    assert (rows["disagreement"].canary, rows["disagreement"].stable) == ("50 of 500 (10.00%)", "")
    assert rows["budget of disagreement"].canary == "50 of 500 (10.00%)"


def test_the_budget_is_proven_by_answers_that_agree() -> None:
    early, late = judged(1), judged(5)

    assert (early.verdict(), late.verdict()) == ("not yet", "not yet")
    assert early.lacking() == ["errors", "slow", "disagreement"]
    assert late.lacking() == ["errors", "slow"]


@pytest.mark.parametrize(
    ("counted", "told"),
    [("canary_refused", "refused requests by one slot alone"), ("canary_failed", "failed requests by one slot alone")],
)
def test_what_the_canary_alone_refuses_or_fails_takes_it_back(counted: str, told: str) -> None:
    ledger = judged(8, **{counted: 3, "decided": 97, "pairs": 97})

    assert ledger.verdict() == "back"
    assert status.sentence(ledger).startswith(f"Back: {told}: 24 of 800 (3.00%) at the canary, 0 of 800 (0.00%) at")


@pytest.mark.parametrize("counted", ["stable_refused", "stable_failed"])
def test_what_stable_alone_refuses_or_fails_speaks_for_the_canary(counted: str) -> None:
    assert judged(20, **{counted: 3}).peak == 0


def test_a_model_that_decides_nothing_need_not_prove_that_it_decides_the_same() -> None:
    ledger = judged(5, decided=0)

    assert ledger.lacking() == ["errors", "slow"]
    assert status.not_judged(ledger)[0] == "disagreement: no two decisions on the same request were there to compare."


@pytest.mark.parametrize("check", ["errors", "refused"])
@pytest.mark.parametrize("alone", [1, 2, 5, 20])
def test_evidence_of_requests_by_one_slot_alone_is_a_fair_bet(check: str, alone: int) -> None:
    ours = np.arange(alone + 1)
    counts = Counts(ours[:, np.newaxis], np.array([50.0]), alone - ours[:, np.newaxis], np.array([50.0]))
    evidence = np.exp(log_mean(Rules().log_ratios(check, counts)[:, 0]))

    assert float(binom.pmf(ours, alone, 0.5) @ evidence) == pytest.approx(1)
