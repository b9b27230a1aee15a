"""Predictor outputs become decisions: score, label, band and reasons."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tabserve.arrays import Array
from tabserve.inference.errors import PredictionFailed
from tabserve.inference.tensors import TensorSpec, holds_any
from tabserve.schema.schema import Reasons, Schema


class Contributor(Protocol):
    """A model feature; `source` is the schema's feature it comes from, "" where that is several."""

    @property
    def name(self) -> str:
        """The model feature's own name."""

    @property
    def source(self) -> str:
        """The schema feature."""


class Decisions:
    """What a schema's `outputs` say about a model's answers.

    features: the model's, in the order of its contributions. classes: names of its classes, in the order of
    `predict_proba`; empty for a regression.
    The score is the probability of `decision.score`, or of the likeliest class where the schema names none; of a
    regression it is `predict`. The decision is the score's band, or the likeliest class where there are no bands.
    """

    specs: tuple[TensorSpec, ...]
    """The tensors `decide` can give."""

    def __init__(self, schema: Schema, features: Sequence[Contributor], classes: Sequence[str]) -> None:
        decision, reasons = schema.outputs.decision, schema.outputs.reasons
        self._source = "predict_proba" if classes else "predict"
        self._classes = np.array(classes, dtype=object)
        self._scored = classes.index(decision.score) if classes and decision else None
        bands = decision.bands[::-1] if decision else ()
        self._edges = np.array([band.from_ for band in bands])
        self._bands = [*(band.label for band in bands[:1]), *(band.label for band in bands)]  # below the lowest, too
        self._reasons = _Reasons(reasons, features) if reasons else None
        decides = bool(classes or bands)
        self.specs = (
            *([TensorSpec("decision", "BYTES", (-1,))] if decides else []),
            TensorSpec("score", "FP64", (-1,)),
            *([TensorSpec("reasons", "BYTES", (-1, self._reasons.top))] if self._reasons else []),
        )
        self.names = tuple(spec.name for spec in self.specs)

    def needs(self, names: Collection[str]) -> tuple[str, ...]:
        """The predictor's outputs that `decide` must be given for these names (or `label`)."""
        if "reasons" in names:
            return self._source, "contributions"
        return (self._source,) if names else ()

    def decide(self, outputs: Mapping[str, Array], names: Collection[str]) -> dict[str, Array]:
        """The named tensors of all rows, of `decision` and `label` [rows], `score` [rows] FP64, `reasons` [rows, top].

        A name that this schema does not give (a regression's label) is left out.
        `reasons` are texts, the strongest first, padded with "". Scores are compared with bands in the precision the
        model answered in, so that a score written as a band's edge is in that band.
        Raises PredictionFailed where a score is NaN.
        """
        answer = outputs[self._source]
        ranked = self._scored is None or not self._bands or "label" in names
        likeliest = answer.argmax(axis=1) if ranked and len(self._classes) else None
        chosen = likeliest if self._scored is None else self._scored
        score = self._score(answer, chosen)
        made: dict[str, Array] = {}
        if "score" in names:
            made["score"] = score.astype(np.float64)
        if likeliest is not None and "label" in names:
            made["label"] = self._classes[likeliest]
        if "decision" in names and "decision" in self.names:
            made["decision"] = self._decision(score, likeliest)
        if self._reasons and "reasons" in names:
            made["reasons"] = self._reasons.tell(_towards(outputs["contributions"], chosen))
        return made

    def _score(self, answer: Array, chosen: Any) -> Array:
        if chosen is None:
            score = answer
        elif isinstance(chosen, int):
            score = answer[:, chosen]
        else:
            score = answer[np.arange(len(answer)), chosen]
        if holds_any(np.isnan(score)):
            raise PredictionFailed("the model answered with a score that is no number")
        return score

    def _decision(self, score: Array, likeliest: Array | None) -> Array:
        if not self._bands:
            return np.asarray(self._classes[likeliest])
        bands, edges = self._bands, self._edges.astype(score.dtype).tolist()
        return np.array([bands[bisect_right(edges, each)] for each in score.tolist()], object)


class _Reasons:
    """The features that push a score up the most, in words."""

    def __init__(self, reasons: Reasons, features: Sequence[Contributor]) -> None:
        sources = [feature.source or feature.name for feature in features]
        names = list(dict.fromkeys(sources))
        groups = np.array([names.index(source) for source in sources])
        self._order = np.argsort(groups, kind="stable")
        self._starts = np.searchsorted(groups[self._order], np.arange(len(names)))
        self._one_each = len(names) == len(features)
        self._texts = np.array([reasons.texts.get(name, name) for name in names], dtype=object)
        self.top = min(reasons.top, len(names))

    def tell(self, contributions: Array) -> Array:
        """Texts [rows, top] from contributions [rows, features + 1] towards the score; nothing that pushes down."""
        pushes = contributions[:, :-1]
        if not self._one_each:
            pushes = np.add.reduceat(pushes[:, self._order], self._starts, axis=1, dtype=np.float64)
        strongest = np.argsort(-pushes, axis=1, kind="stable")[:, : self.top]
        pushing = pushes[np.arange(len(pushes))[:, np.newaxis], strongest] > 0
        return np.where(pushing, self._texts[strongest], "")


def _towards(contributions: Array, chosen: Any) -> Array:
    """Contributions [rows, features + 1] to the score of the chosen class: one for all rows, or one for each.

    Those of a binary model are towards its second class; those of a regression towards its value.
    """
    if chosen is None:
        return contributions
    if contributions.ndim == 3:
        return np.asarray(contributions[np.arange(len(contributions)), chosen])
    if isinstance(chosen, int):
        return contributions if chosen else -contributions
    return np.asarray(np.where(chosen[:, np.newaxis] == 0, -contributions, contributions))
