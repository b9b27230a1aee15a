"""The transformer's metrics besides its requests: the predictor's answers, and decisions."""

from __future__ import annotations

from tabserve.arrays import Array
from tabserve.inference.metrics import PROBABILITY, SECONDS, Counter, Histogram, Info, Metrics


class Instruments:
    """The transformer's own metrics.

    probability: whether scores are probabilities; their distribution is then recorded.
    """

    def __init__(self, metrics: Metrics, facts: dict[str, str], *, probability: bool) -> None:
        self._predictor = Histogram(
            "tabserve_predictor_seconds", "Time spent waiting for the predictor", SECONDS, ("status",)
        )
        self._decisions = Counter("tabserve_decisions", "Records by decision", ("decision",))
        self._score = Histogram("tabserve_score", "Score behind the decision", PROBABILITY) if probability else None
        metrics.add(self._predictor, self._decisions, Info("tabserve_model", "The model served", facts))
        if self._score:
            metrics.add(self._score)

    def waited(self, seconds: float, status: int) -> None:
        """Record one call to the predictor, and its status."""
        self._predictor.observe(seconds, str(status))

    def decided(self, made: dict[str, Array]) -> None:
        """Record the decisions on one request's records."""
        for decision in made["decision"].tolist() if "decision" in made else ():
            self._decisions.add(decision)
        if self._score and "score" in made:
            _observe(self._score, made["score"])


def _observe(histogram: Histogram, values: Array) -> None:
    if len(values) == 1:
        histogram.observe(values.item())
    else:
        histogram.observe_all(values)
