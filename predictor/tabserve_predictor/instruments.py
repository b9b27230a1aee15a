"""What the predictor measures besides its requests: queue, batches, engine and predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tabserve.arrays import Array
from tabserve.inference.metrics import PROBABILITY, ROWS, SECONDS, Counter, Histogram, Info, Metrics


class Instruments:
    """The predictor's own metrics.

    classes: names of the model's classes; empty for a regression.
    """

    def __init__(self, metrics: Metrics, facts: dict[str, str], classes: Sequence[str]) -> None:
        self._classes = classes
        self._queue = Histogram("tabserve_queue_seconds", "From admission to the engine's start", SECONDS)
        self._batch = Histogram("tabserve_batch_rows", "Rows of one engine call", ROWS, ("engine",))
        self._engine = Histogram("tabserve_engine_seconds", "Time of one engine call", SECONDS, ("engine",))
        self._predictions = Counter("tabserve_predictions", "Rows by predicted class", ("class",))
        self._score = Histogram("tabserve_score", "Probability of the last class", PROBABILITY)
        info = Info("tabserve_model", "The model served", facts)
        metrics.add(self._queue, self._batch, self._engine, self._predictions, self._score, info)

    def called(self, engine: str, count: int, seconds: float, queued: Sequence[float]) -> None:
        """One engine call over `count` rows, and how long each of its requests had waited."""
        self._batch.observe(count, engine)
        self._engine.observe(seconds, engine)
        for waited in queued:
            self._queue.observe(waited)

    def predicted(self, probabilities: Array) -> None:
        """The probabilities [rows, classes] of one engine call."""
        if len(probabilities) == 1:
            row = probabilities[0].tolist()
            self._predictions.add(self._classes[row.index(max(row))])
            self._score.observe(row[-1])
            return
        counts = np.bincount(probabilities.argmax(axis=1), minlength=len(self._classes))
        for name, count in zip(self._classes, counts.tolist(), strict=True):
            self._predictions.add(name, count=count)
        self._score.observe_all(probabilities[:, -1])
