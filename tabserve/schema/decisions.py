"""Turn predictor outputs into decisions: score, label, band and reasons."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tabserve.arrays import Array
from tabserve.inference.errors import PredictionFailed
from tabserve.inference.tensors import TensorSpec, holds_any, text
from tabserve.schema.schema import ANOMALY_SCORE, MARGIN, PREDICT, Reasons, Schema

CODES = "codes"
"""What `decide` gives besides `specs`, for the decision log: the code of each reason."""
_FEW_ROWS = 32
"""Rows up to here are decided faster one by one than by numpy."""


class Contributor(Protocol):
    """A model feature; `source` is the schema feature that it comes from, "" if there are several."""

    @property
    def name(self) -> str:
        """The model feature's own name."""

    @property
    def source(self) -> str:
        """The schema feature that the model feature comes from."""


class Model(Protocol):
    """What decisions need to know about a model, as its entry in a bundle's manifest gives it."""

    @property
    def features(self) -> Sequence[Contributor]:
        """The model's features, in the order of its contributions."""

    @property
    def outputs(self) -> Sequence[str]:
        """The outputs that the model computes."""

    @property
    def likeliest(self) -> bool:
        """Whether the predicted class is always the one with the highest probability."""


class Decisions:
    """A schema's `outputs`, applied to a model's answers.

    classes: names of the model's classes, in its order; empty for a regression.
    The label is the class that the model itself predicts. The decision is the score's band, or the label where there
    are no bands. The score is what the schema's decision names: a class's probability, `margin`, the value or a target
    of a regression, or `anomaly_score`. Where the schema names nothing, the score is the label's probability, the value
    of a regression, or the anomaly score; a model that has none of these has no score.
    """

    specs: tuple[TensorSpec, ...]
    """The tensors `decide` can give."""
    possible: tuple[str, ...]
    """The decisions that there can be."""

    def __init__(self, schema: Schema, model: Model, classes: Sequence[str]) -> None:
        decision, reasons = schema.outputs.decision, schema.outputs.reasons
        self._classes = np.array(classes, dtype=object)
        self._places = {name: at for at, name in enumerate(classes)}
        self._likeliest = model.likeliest
        self._source, self._column = _score_of(schema, model.outputs)
        bands = decision.bands[::-1] if decision else ()
        self._edges = np.array([band.from_ for band in bands])
        self._bands = [*(band.label for band in bands[:1]), *(band.label for band in bands)]  # also below the lowest
        self.possible = tuple(dict.fromkeys(self._bands or classes))
        self._reasons = _Reasons(reasons, model.features) if reasons else None
        self._for = frozenset(reasons.for_ if reasons else ())
        self.specs = (
            *([TensorSpec("decision", "BYTES", (-1,))] if classes or bands else []),
            *([TensorSpec("score", "FP64", (-1,))] if self._source else []),
            *([TensorSpec("reasons", "BYTES", (-1, self._reasons.top))] if self._reasons else []),
        )
        self.names = tuple(spec.name for spec in self.specs)

    @property
    def of_probability(self) -> bool:
        """Whether the score is a class's probability."""
        return self._source == "predict_proba"

    @property
    def column(self) -> int | None:
        """The class or target that the score is of, by its place; None if it is the label's, or the only one."""
        return self._column

    def needs(self, names: Collection[str]) -> tuple[str, ...]:
        """The predictor's outputs that `decide` needs for these names (or `label`)."""
        needed = []
        if names and self._source:
            needed.append(self._source)
        if self._labelled(names) and not self._likeliest:
            needed.append("label")
        if "reasons" in names and not self._for:
            needed.append("contributions")
        return tuple(needed)

    def explained(self, outputs: Mapping[str, Array]) -> Array | None:
        """The positions of the rows in bands that reasons are given `for`; None if every row gets reasons.

        Their contributions are needed in addition to what `needs` names. Raises PredictionFailed where a score is NaN.
        """
        if not self._for:
            return None
        return self._explained(self._decision(_score(outputs[self._source], self._column), None))

    def lacking(self, outputs: Mapping[str, Array]) -> Array:
        """The positions of the rows whose contributions reasons need besides these outputs.

        Raises PredictionFailed as `explained` does.
        """
        explained = None if "contributions" in outputs else self.explained(outputs)
        return np.empty(0, np.intp) if explained is None else explained

    def _explained(self, bands: Array) -> Array:
        return np.array([at for at, band in enumerate(bands.tolist()) if band in self._for], np.intp)

    def decide(self, outputs: Mapping[str, Array], names: Collection[str]) -> dict[str, Array]:
        """The named arrays for all rows: `decision` and `label` [rows], `score` [rows] FP64, `reasons` [rows, top].

        A name that this schema does not give (a regression's label) is left out.
        `reasons` are texts, the strongest first, padded with ""; `codes` are theirs, given only with them. Scores are
        compared with bands in the precision the model answered in, so that a score written as a band's edge is in that
        band. Contributions are given for all rows, or only for the `explained` ones.
        Raises PredictionFailed where a score is NaN.
        """
        labels = self._labels(outputs) if self._labelled(names) else None
        column = labels if self._column is None else self._column
        score = _score(outputs[self._source], column) if self._source else None
        made: dict[str, Array] = {}
        if score is not None and "score" in names:
            made["score"] = score.astype(np.float64)
        if labels is not None and "label" in names:
            made["label"] = self._classes[labels]
        if "decision" in names and "decision" in self.names:
            made["decision"] = self._decision(score, labels)
        if self._reasons and "reasons" in names:
            if not self._for:
                strongest = self._reasons.strongest(_towards(outputs["contributions"], column))
            else:
                bands = made["decision"] if "decision" in made else self._decision(score, labels)
                strongest = self._strongest(self._reasons, self._explained(bands), outputs)
            made["reasons"] = self._reasons.texts[strongest]
            if CODES in names:
                made[CODES] = self._reasons.codes[strongest]
        return made

    def _strongest(self, reasons: _Reasons, explained: Array, outputs: Mapping[str, Array]) -> Array:
        """The strongest features [rows, top] of the explained rows; none for the others."""
        strongest = np.full((len(outputs[self._source]), reasons.top), _NONE)
        if len(explained):
            contributions = outputs["contributions"]
            some = contributions if len(contributions) == len(explained) else contributions[explained]
            strongest[explained] = reasons.strongest(_towards(some, self._column))
        return strongest

    def towards_score(self, outputs: Mapping[str, Array]) -> Array:
        """Contributions [rows, features + 1] to the score, the bias last.

        They are made of contributions, and of what `needs` names for score and reasons.
        """
        of_label = self._column is None and len(self._classes) > 0
        return _towards(outputs["contributions"], self._labels(outputs) if of_label else self._column)

    def _labelled(self, names: Collection[str]) -> bool:
        """Whether the label is needed for these names."""
        if not len(self._classes):
            return False
        of_label = self._column is None and ("reasons" in names or (self.of_probability and bool(names)))
        return "label" in names or ("decision" in names and not self._bands) or of_label

    def _labels(self, outputs: Mapping[str, Array]) -> Array:
        """The position of each row's class."""
        if self._likeliest:
            return _likeliest(outputs["predict_proba"])
        return np.array([self._places[text(name)] for name in outputs["label"].tolist()], np.intp)

    def _decision(self, score: Array | None, labels: Array | None) -> Array:
        if score is None or not self._bands:
            return np.asarray(self._classes[labels])
        bands, edges = self._bands, self._edges.astype(score.dtype)
        if len(score) > _FEW_ROWS:
            return np.array(bands, object)[np.searchsorted(edges, score, side="right")]
        few = edges.tolist()
        return np.array([bands[bisect_right(few, each)] for each in score.tolist()], object)


def _likeliest(probabilities: Array) -> Array:
    """The position of the highest of each row, the first of equal ones."""
    if probabilities.shape[1] == 2:  # several times faster than argmax
        return (probabilities[:, 1] > probabilities[:, 0]).astype(np.intp)
    return np.asarray(probabilities.argmax(axis=1))


def _score_of(schema: Schema, outputs: Collection[str]) -> tuple[str, int | None]:
    """The output that holds the score, "" if there is none, and its column.

    The column is None if it is the label's or the only one. For a margin, which has only one, it is the class that
    contributions are towards.
    """
    decision, task = schema.outputs.decision, schema.task
    if task == "regression":
        if not schema.outputs.targets:
            return PREDICT, None
        return (PREDICT, schema.outputs.targets.index(decision.score)) if decision else ("", None)
    if task == "anomaly":
        return ANOMALY_SCORE, None
    if decision and decision.score not in schema.outputs.classes:
        return MARGIN, 1
    if "predict_proba" not in outputs:
        return "", None
    return "predict_proba", schema.outputs.classes.index(decision.score) if decision else None


def _score(answer: Array, column: Any) -> Array:
    if answer.ndim == 1:
        score = answer
    elif isinstance(column, int):
        score = answer[:, column]
    else:
        score = answer[np.arange(len(answer)), column]
    if holds_any(np.isnan(score)):
        raise PredictionFailed("the model answered with a score that is not a number")
    return score


_NONE = -1
"""The position of no feature, at which texts and codes are empty."""


class _Reasons:
    """The features that push a score up the most; texts, codes: of each, and last of none."""

    def __init__(self, reasons: Reasons, features: Sequence[Contributor]) -> None:
        sources = [feature.source or feature.name for feature in features]
        names = list(dict.fromkeys(sources))
        groups = np.array([names.index(source) for source in sources])
        self._order = np.argsort(groups, kind="stable")
        self._starts = np.searchsorted(groups[self._order], np.arange(len(names)))
        self._one_each = len(names) == len(features)
        self.texts = np.array([*(reasons.texts.get(name, name) for name in names), ""], dtype=object)
        self.codes = np.array([*(reasons.codes.get(name, name) for name in names), ""], dtype=object)
        self.top = min(reasons.top, len(names))

    def strongest(self, contributions: Array) -> Array:
        """The features' positions [rows, top] from contributions [rows, features + 1] to the score, strongest first.

        Features must push it up; the other places have none.
        """
        pushes = contributions[:, :-1]
        if not self._one_each:
            pushes = np.add.reduceat(pushes[:, self._order], self._starts, axis=1, dtype=np.float64)
        strongest = np.argsort(-pushes, axis=1, kind="stable")[:, : self.top]
        pushing = pushes[np.arange(len(pushes))[:, np.newaxis], strongest] > 0
        return np.where(pushing, strongest, _NONE)


def _towards(contributions: Array, chosen: Any) -> Array:
    """Contributions [rows, features + 1] to the score of the chosen class, one class for all rows or one per row.

    A binary model's contributions are to its second class, a regression's to its value.
    """
    if chosen is None:
        return contributions
    if contributions.ndim == 3:
        return np.asarray(contributions[np.arange(len(contributions)), chosen])
    if isinstance(chosen, int):
        return contributions if chosen else -contributions
    return np.asarray(np.where(chosen[:, np.newaxis] == 0, -contributions, contributions))
