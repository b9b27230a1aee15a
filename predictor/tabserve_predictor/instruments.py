"""The predictor's metrics besides its requests: queue, batches, engine and predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tabserve.arrays import Array
from tabserve.bundle.manifest import ModelInfo
from tabserve.inference.metrics import PROBABILITY, ROWS, SECONDS, Counter, Histogram, Info, Metrics


class Instruments:
    """The predictor's own metrics.

    names: the names of the model's classes; empty for a regression.
    """

    def __init__(self, metrics: Metrics, facts: dict[str, str], model: ModelInfo, names: Sequence[str]) -> None:
        self._names, self._likeliest = names, model.likeliest
        self._by_value = dict(zip(model.classes, names, strict=True)) if names else {}
        self._queue = Histogram("tabserve_queue_seconds", "From admission to the engine's start", SECONDS)
        self._batch = Histogram("tabserve_batch_rows", "Rows in one engine call", ROWS, ("engine",))
        self._engine = Histogram("tabserve_engine_seconds", "Duration of one engine call", SECONDS, ("engine",))
        self._predictions = Counter("tabserve_predictions", "Rows by predicted class", ("class",))
        self._score = Histogram("tabserve_score", "Probability of the last class", PROBABILITY)
        info = Info("tabserve_model", "The model served", facts)
        metrics.add(self._queue, self._batch, self._engine, self._predictions, self._score, info)

    def called(self, engine: str, count: int, seconds: float, queued: Sequence[float]) -> None:
        """Record one engine call over `count` rows, and how long each of its requests had waited."""
        self._batch.observe(count, engine)
        self._engine.observe(seconds, engine)
        for waited in queued:
            self._queue.observe(waited)

    def predicted(self, computed: Mapping[str, Array]) -> None:
        """Record the outputs of one engine call.

        Its rows are counted by the class that the model predicts, if that is among the outputs or follows from them.
        """
        probabilities = computed.get("predict_proba")
        if probabilities is not None:
            self._observe(probabilities, counted=self._likeliest and "predict" not in computed)
        if self._by_value and "predict" in computed:
            for value in computed["predict"].tolist():
                self._predictions.add(self._by_value[value])

    def _observe(self, probabilities: Array, *, counted: bool) -> None:
        """Record the last class's probabilities and, if `counted`, how often each class is the likeliest."""
        if len(probabilities) == 1:  # faster than numpy
            row = probabilities[0].tolist()
            self._score.observe(row[-1])
            if counted:
                self._predictions.add(self._names[row.index(max(row))])
            return
        self._score.observe_all(probabilities[:, -1])
        if counted:
            for place, count in enumerate(np.bincount(probabilities.argmax(axis=1)).tolist()):
                self._predictions.add(self._names[place], count=count)
