"""The transformer's metrics besides its requests: the predictor's answers, and decisions."""

from __future__ import annotations

from collections.abc import Sequence

from tabserve.arrays import Array
from tabserve.inference.arms import SPLIT
from tabserve.inference.metrics import LOGIT, PROBABILITY, SECONDS, Counter, Histogram, Info, Metrics


class Instruments:
    """The transformer's own metrics.

    decisions: those that there can be. probability: whether scores are probabilities; their distribution is recorded.
    Decisions and scores are counted by row, and by request, of which the first row stands for all: rows of one request
    resemble each other, so only requests are a sample that two releases can be compared by.
    """

    def __init__(self, metrics: Metrics, facts: dict[str, str], decisions: Sequence[str], *, probability: bool) -> None:
        self._predictor = Histogram(
            "tabserve_predictor_seconds", "Time spent waiting for the predictor", SECONDS, ("status",)
        )
        self._decisions = Counter("tabserve_decisions", "Records by decision", ("decision",))
        self._first_decision = Counter(
            "tabserve_first_decision", "Requests by the decision on their first row", ("decision", "arm")
        )
        for decision in decisions:
            self._first_decision.add(decision, SPLIT, count=0)
        self._score = Histogram("tabserve_score", "Score behind the decision", PROBABILITY)
        self._first_score = Histogram("tabserve_first_score", "Score of a request's first row", LOGIT, ("arm",))
        self._probability = probability
        info = Info("tabserve_model", "The model served", facts)
        metrics.add(self._predictor, self._decisions, self._first_decision, info)
        if probability:
            metrics.add(self._score, self._first_score)

    def waited(self, seconds: float, status: int) -> None:
        """Record one call to the predictor, and its status."""
        self._predictor.observe(seconds, str(status))

    def decided(self, made: dict[str, Array], arm: str) -> None:
        """Record the decisions on the records of one request, which came by this arm."""
        decisions = made["decision"].tolist() if "decision" in made else []
        for decision in decisions:
            self._decisions.add(decision)
        if decisions:
            self._first_decision.add(decisions[0], arm)
        if self._probability and "score" in made and len(made["score"]):
            self._score.observe_all(made["score"])
            self._first_score.observe(made["score"].item(0), arm)
