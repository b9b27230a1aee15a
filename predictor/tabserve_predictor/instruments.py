"""The predictor's metrics besides its requests: queue, batches, engine and predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from tabserve.arrays import Array
from tabserve.bundle.manifest import ModelInfo
from tabserve.inference.arms import SPLIT
from tabserve.inference.metrics import LOGIT, PROBABILITY, ROWS, SECONDS, Counter, Histogram, Info, Metrics

First: TypeAlias = tuple[int, str]
"""The position of a request's first row in a batch, and the arm it came by."""


class Instruments:
    """The predictor's own metrics.

    names: the names of the model's classes; empty for a regression.
    Classes and probabilities are counted by row, and by request, of which the first row stands for all.
    """

    def __init__(self, metrics: Metrics, facts: dict[str, str], model: ModelInfo, names: Sequence[str]) -> None:
        self._names, self._likeliest = names, model.likeliest
        self._by_value = dict(zip(model.classes, names, strict=True)) if names else {}
        self._queue = Histogram("tabserve_queue_seconds", "From admission to the engine's start", SECONDS)
        self._batch = Histogram("tabserve_batch_rows", "Rows in one engine call", ROWS, ("engine",))
        self._engine = Histogram("tabserve_engine_seconds", "Duration of one engine call", SECONDS, ("engine",))
        self._predictions = Counter("tabserve_predictions", "Rows by predicted class", ("class",))
        self._score = Histogram("tabserve_score", "Probability of the last class", PROBABILITY)
        self._first_class = Counter(
            "tabserve_first_class", "Requests by the class predicted for their first row", ("class", "arm")
        )
        for name in names:
            self._first_class.add(name, SPLIT, count=0)
        self._first_score = Histogram(
            "tabserve_first_score", "Probability of the last class for a request's first row", LOGIT, ("arm",)
        )
        info = Info("tabserve_model", "The model served", facts)
        metrics.add(self._queue, self._batch, self._engine, self._predictions, self._score, info)
        metrics.add(self._first_class, self._first_score)

    def called(self, engine: str, count: int, seconds: float, queued: Sequence[float]) -> None:
        """Record one engine call over `count` rows, and how long each of its requests had waited."""
        self._batch.observe(count, engine)
        self._engine.observe(seconds, engine)
        for waited in queued:
            self._queue.observe(waited)

    def predicted(self, computed: Mapping[str, Array], firsts: Sequence[First]) -> None:
        """Record the outputs of one engine call for the requests whose first rows are these.

        Its rows are counted by the class that the model predicts, if that is among the outputs or follows from them.
        """
        probabilities = computed.get("predict_proba")
        if probabilities is not None:
            self._observe(probabilities, firsts, counted=self._likeliest and "predict" not in computed)
        if self._by_value and "predict" in computed:
            values = computed["predict"].tolist()
            for value in values:
                self._predictions.add(self._by_value[value])
            for at, arm in firsts:
                self._first_class.add(self._by_value[values[at]], arm)

    def _observe(self, probabilities: Array, firsts: Sequence[First], *, counted: bool) -> None:
        """Record the last class's probabilities and, if `counted`, how often each class is the likeliest."""
        for at, arm in firsts:
            row = probabilities[at].tolist()
            self._first_score.observe(row[-1], arm)
            if counted:
                self._first_class.add(self._names[row.index(max(row))], arm)
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
