"""What the transformer measures besides its requests: the predictor's answers, and decisions."""

from __future__ import annotations

from collections import Counter as Tally

from tabserve.inference.metrics import PROBABILITY, SECONDS, Counter, Histogram, Info, Metrics
from tabserve.inference.tensors import Array


class Instruments:
    """The transformer's own metrics."""

    def __init__(self, metrics: Metrics, facts: dict[str, str]) -> None:
        self._predictor = Histogram("tabserve_predictor_seconds", "Waiting for the predictor", SECONDS, ("status",))
        self._decisions = Counter("tabserve_decisions", "Records by decision", ("decision",))
        self._score = Histogram("tabserve_score", "Score decided on", PROBABILITY)
        metrics.add(self._predictor, self._decisions, self._score, Info("tabserve_model", "The model served", facts))

    def waited(self, seconds: float, status: int) -> None:
        """One call of the predictor, with the status it ended in."""
        self._predictor.observe(seconds, str(status))

    def decided(self, made: dict[str, Array]) -> None:
        """What was decided on one request's records."""
        if "decision" in made:
            for decision, count in Tally(made["decision"].tolist()).items():
                self._decisions.add(decision, count=count)
        if "score" in made:
            self._scored(made["score"])

    def _scored(self, scores: Array) -> None:
        if len(scores) == 1:
            self._score.observe(scores.item())
        else:
            self._score.observe_all(scores)
