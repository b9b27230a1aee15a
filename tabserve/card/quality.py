"""How good a bundle's answers are to records whose outcome is known, and how they differ between audited groups."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.bundle import Bundle, BundleError, evaluation
from tabserve.bundle.evaluation import Evaluation, Outcomes
from tabserve.bundle.tensors import class_names
from tabserve.monitor import equity
from tabserve.monitor.counts import Window
from tabserve.monitor.labels import Labelled, Metrics
from tabserve.schema.groups import Grouped, grouped
from tabserve.train import evaluating, tables
from tabserve.train.evaluating import Judged

SAVED = "the records that were given to save"


class Quality(msgspec.Struct, frozen=True):
    """The answers to some records. held_out: whether the model was not trained on them.

    decisions: how many had each. metrics: None without labels. far: nine in ten errors of a regression are below it.
    """

    of: str
    held_out: bool
    rows: int
    decisions: dict[str, int]
    metrics: Metrics | None
    far: float | None


class Measured(NamedTuple):
    """What records with their outcomes show."""

    quality: Quality
    equity: list[equity.Statement]


def of_evaluation(what: str, found: Evaluation, names: Sequence[str]) -> Quality:
    """The quality that an evaluation shows. what: the records."""
    decided = dict(zip(names, found.decisions.counts.tolist(), strict=True))
    outcomes = found.outcomes
    metrics = None if outcomes is None else _metrics(outcomes, found.rows, names)
    far = None if outcomes is None else _number(outcomes.far)
    return Quality(what, found.held_out, found.rows, decided, metrics, far)


def _metrics(outcomes: Outcomes, rows: int, names: Sequence[str]) -> Metrics:
    return Metrics(
        rows,
        float(outcomes.wrong.sum() / rows),
        _number(outcomes.auc),
        _number(outcomes.brier),
        dict(zip(names, outcomes.confusion.tolist(), strict=True)),
        [[_number(each) for each in tenth] for tenth in outcomes.deciles.tolist()],
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def measured(bundle: Bundle, path: Path, label: str, alpha: float) -> Measured:
    """What the records in a file show. Raises BundleError.

    label: the column with what each turned out to be. alpha: the probability that any interval is wrong.
    """
    schema = bundle.schema
    records = tables.sample(path, schema)
    if label not in records:
        problem = f"expected records with the column {label!r}, got {', '.join(records)}"
        raise BundleError(path.name, problem, "Name the column with what records turned out to be: --label COLUMN.")
    labels = records.pop(label)
    try:
        given = evaluating.rows(schema, {}, records, labels)
        assert given is not None
        judged = evaluating.judged(bundle, given)
    except BundleError as error:
        raise BundleError(path.name, f"{error.file}: {error.problem}", error.remedy) from error
    names = evaluation.decision_names(schema, class_names(bundle))
    audited = grouped([field for field in schema.record if field.use == "audit"])
    groups = [each.places(given.columns[each.field.name]) for each in audited]
    labelled = _labelled(judged, groups)
    window = _window(judged, groups, audited, len(names))
    stated = equity.statements(audited, names, window, labelled, alpha, largest=1.0)
    return Measured(of_evaluation(path.name, judged.evaluation, names), stated)


def _labelled(judged: Judged, groups: Sequence[Array]) -> Labelled | None:
    """The records with their outcomes; None for a regression, whose outcomes are no classes."""
    if judged.true is None or judged.hits is None:
        return None
    rows = len(judged.decisions)
    none, scores = np.zeros(rows, np.intp), judged.scores
    return Labelled(
        days=none,
        releases=none,
        weights=np.ones(rows),
        decisions=judged.decisions,
        true=judged.true,
        hits=judged.hits,
        wrong=none,
        scores=np.full(rows, np.nan) if scores is None else scores,
        groups=groups,
    )


def _window(judged: Judged, groups: Sequence[Array], audited: Sequence[Grouped], names: int) -> Window:
    """All records together, each with weight 1."""
    rows = len(judged.decisions)
    decided = np.bincount(judged.decisions, minlength=names)
    tables = [
        np.bincount(codes * names + judged.decisions, minlength=len(each.groups) * names).reshape(-1, names)
        for codes, each in zip(groups, audited, strict=True)
    ]
    both = [(table, table.astype(np.float64)) for table in tables]
    return Window([], rows, float(rows), (decided, decided.astype(np.float64)), np.zeros(names), both)
