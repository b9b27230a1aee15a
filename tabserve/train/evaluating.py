"""What a bundle keeps of its model's answers to records that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from tabserve import arrays
from tabserve.arrays import Array
from tabserve.bundle import evaluation, histogram, measures
from tabserve.bundle.errors import BundleError
from tabserve.bundle.evaluation import Evaluation, Outcomes, Segment
from tabserve.bundle.histogram import Histogram
from tabserve.bundle.loading import Bundle
from tabserve.bundle.model_input import ModelInput, RecordFeatures
from tabserve.bundle.outputs import Outputs, of_engine
from tabserve.bundle.reference import Columns
from tabserve.bundle.tensors import class_names, may_miss
from tabserve.engines import load_preprocessor, open_engine
from tabserve.inference.errors import InferenceError
from tabserve.schema.decisions import Decisions
from tabserve.schema.groups import grouped
from tabserve.schema.schema import Schema
from tabserve.train import sampling

_AT_ONCE = 16_384
_SHOWN = 5
_MOST_GROUPS = 200


class Rows(msgspec.Struct, frozen=True):
    """Records to evaluate a model on. labels: what they turned out to be, None if that is unknown."""

    columns: Columns
    held_out: bool
    labels: list[Any] | None


class _Answers(msgspec.Struct, frozen=True):
    """What was answered: `decisions` as positions in the decisions' names; `scores` None if there are none."""

    decisions: Array
    scores: Array | None
    labels: Array | None
    values: Array | None


def rows(schema: Schema, sample: Columns, held_out: Any, labels: Any) -> Rows | None:
    """The records to evaluate on, None if there is nothing to do. Raises BundleError for those that do not fit."""
    if held_out is None and labels is None:
        return None
    try:
        columns = sample if held_out is None else sampling.columns(schema, held_out)
    except BundleError as error:
        raise BundleError("held_out", error.problem, "Correct the records or the schema.") from error
    count = len(next(iter(columns.values())))
    if labels is None:
        return Rows(columns, True, None)
    if schema.outputs.targets:
        raise BundleError("labels", "are not kept for a regression of several targets", "Leave them out.")
    given = np.asarray(labels, object).tolist()
    if len(given) != count:
        what = "sample" if held_out is None else "held-out records"
        raise BundleError("labels", f"expected {count}, one for each of the {what}, got {len(given)}", "Give them all.")
    return Rows(columns, held_out is not None, given)


class Judged(msgspec.Struct, frozen=True):
    """What became of each record [rows]: `decisions` as positions in the decisions' names; `scores` None without any.

    true: the place of the true class, hits: whether it is the class that the score is for; None without labels, and for
    a regression.
    """

    evaluation: Evaluation
    decisions: Array
    scores: Array | None
    true: Array | None
    hits: Array | None


def evaluated(bundle: Bundle, given: Rows) -> Bundle:
    """The bundle with what its model answered. Raises BundleError."""
    found = judged(bundle, given).evaluation
    return msgspec.structs.replace(bundle, reference=msgspec.structs.replace(bundle.reference, evaluation=found))


def judged(bundle: Bundle, given: Rows) -> Judged:
    """What the model answers to each record, and how good that is. Raises BundleError."""
    classes = class_names(bundle)
    names = evaluation.decision_names(bundle.schema, classes)
    what = "held_out" if given.held_out else "sample"
    try:
        answers = _answered(bundle, given.columns, names)
    except InferenceError as error:
        raise BundleError(what, str(error), "Leave out the records that the model does not answer.") from error
    scores = None if answers.scores is None else histogram.of_numbers(answers.scores)
    decided = Histogram(np.array(names, str), np.bincount(answers.decisions, minlength=len(names)), 0)
    outcomes = true = hits = None
    if given.labels is not None and classes:
        true, hits = _truth(bundle, answers, given.labels)
        outcomes = _of_classes(bundle, answers, true, hits, len(names))
    elif given.labels is not None:
        outcomes = _of_values(answers, given, names)
    segments = _segments(bundle.schema, given.columns, answers, scores, len(names))
    found = Evaluation(given.held_out, len(answers.decisions), scores, decided, outcomes, segments)
    return Judged(found, answers.decisions, answers.scores, true, hits)


def _segments(
    schema: Schema, columns: Columns, answers: _Answers, scores: Histogram | None, names: int
) -> dict[str, Segment]:
    """The answers by the groups of each field that has some, unless there are very many."""
    found = {}
    for field in grouped(schema.record):
        size = len(field.groups)
        if size > _MOST_GROUPS:
            continue
        places = field.places(columns[field.field.name])
        decided = np.bincount(places * names + answers.decisions, minlength=size * names).reshape(size, names)
        found[field.field.name] = Segment(_binned(places, size, answers, scores), decided)
    return found


def _binned(places: Array, size: int, answers: _Answers, scores: Histogram | None) -> Array:
    """Rows by group and bin of the scores [groups, bins]."""
    if scores is None or answers.scores is None or not len(scores.counts):
        return np.empty((size, 0), np.int64)
    return np.stack(
        [np.histogram(answers.scores[places == at].astype(np.float64), scores.bounds)[0] for at in range(size)]
    )


def _answered(bundle: Bundle, columns: Columns, names: Sequence[str]) -> _Answers:
    """What the native engine answers. Raises InferenceError for records that the model does not accept."""
    model, classes = bundle.manifest.model, class_names(bundle)
    preprocess = None if bundle.manifest.preprocessor is None else load_preprocessor(bundle)
    accepted = ModelInput(model, may_miss(bundle))
    features = accepted.of_features(RecordFeatures(bundle, preprocess)(columns))
    engine, outputs = open_engine(bundle, model.native, 1), Outputs(model, classes)
    decisions = Decisions(bundle.schema, model, classes)
    wanted = [name for name in (*decisions.names, *(["label"] if classes else [])) if name != "reasons"]
    needed = tuple(dict.fromkeys([*decisions.needs(wanted), *([] if classes else ["predict"])]))
    parts, count = [], arrays.rows(features)
    for start in range(0, count, _AT_ONCE):
        computed = engine.run(arrays.take(features, slice(start, start + _AT_ONCE)), of_engine(needed))
        made = {tensor.name: tensor.array for tensor in outputs.tensors(needed, computed)}
        parts.append({**made, **decisions.decide(made, wanted)})
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    decided = joined.get("decision", np.full(count, names[0], object))
    places = {name: at for at, name in enumerate(names)}
    return _Answers(
        np.array([places[name] for name in decided.tolist()], np.intp),
        joined.get("score"),
        joined.get("label"),
        None if classes else joined["predict"],
    )


def _truth(bundle: Bundle, answers: _Answers, labels: Sequence[Any]) -> tuple[Array, Array]:
    """The places of the true classes, and whether each is the class that the score is for. Raises BundleError."""
    classes = class_names(bundle)
    true = evaluation.class_codes(labels, bundle.manifest.model, classes)
    if len(unknown := np.flatnonzero(true < 0)):
        shown = ", ".join(sorted({repr(labels[at]) for at in unknown.tolist()})[:_SHOWN])
        raise BundleError(
            "labels", f"expected {' or '.join(classes)}, got {shown}", "Give only records whose outcome is known."
        )
    scored = evaluation.scored_class(bundle.schema, classes)
    return true, true == (_labels(bundle, answers) if scored is None else classes.index(scored))


def _labels(bundle: Bundle, answers: _Answers) -> Array:
    """The places of the classes that the model predicts."""
    assert answers.labels is not None
    return evaluation.class_codes(answers.labels.tolist(), bundle.manifest.model, class_names(bundle))


def _of_classes(bundle: Bundle, answers: _Answers, true: Array, hits: Array, names: int) -> Outcomes:
    table = measures.confusion(answers.decisions, true, (names, len(class_names(bundle))))
    wrong = np.bincount(answers.decisions, true != _labels(bundle, answers), names).astype(np.int64)
    hit = np.bincount(answers.decisions, hits, names).astype(np.int64)
    return Outcomes(table, wrong, hit, *_of_scores(bundle, answers.scores, hits), far=np.nan)


def _of_scores(bundle: Bundle, scores: Array | None, hits: Array) -> tuple[Array, Array, Array, float, float]:
    """Edges, deciles, knots, AUC and Brier score."""
    from sklearn.isotonic import IsotonicRegression

    if scores is None:
        return np.empty(0), np.empty((0, 3)), np.empty((2, 0)), np.nan, np.nan
    weights = np.ones(len(scores))
    edges = measures.decile_edges(scores)
    fitted = IsotonicRegression(y_min=0, y_max=1).fit(scores, hits)
    knots = np.array([fitted.X_thresholds_, fitted.y_thresholds_], np.float64)
    probable = Decisions(bundle.schema, bundle.manifest.model, class_names(bundle)).of_probability
    brier = measures.brier(scores, hits, weights) if probable else np.nan
    return edges, measures.deciles(scores, hits, weights, edges), knots, measures.auc(scores, hits, weights), brier


def _of_values(answers: _Answers, given: Rows, names: Sequence[str]) -> Outcomes:
    assert given.labels is not None
    assert answers.values is not None
    try:
        true = np.array(given.labels, np.float64)
    except (TypeError, ValueError) as error:
        raise BundleError("labels", f"expected numbers: {error}", "Give the values as numbers.") from error
    if not np.isfinite(true).all():
        raise BundleError("labels", "expected finite numbers", "Give only records whose outcome is known.")
    errors = np.abs(answers.values - true)
    far = float(np.quantile(errors, evaluation.FAR))
    rows_by = np.bincount(answers.decisions, minlength=len(names))
    wrong = np.bincount(answers.decisions, errors > far, len(names)).astype(np.int64)
    none = np.empty(0)
    return Outcomes(rows_by[:, None], wrong, none, none, np.empty((0, 3)), np.empty((2, 0)), np.nan, np.nan, far)
