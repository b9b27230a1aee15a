"""How a model answered when its bundle was saved, and how well: what a monitor compares with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.bundle.histogram import Histogram
from tabserve.bundle.manifest import ModelInfo
from tabserve.schema.schema import MARGIN, Schema

FAR = 0.9
"""The share of a regression's errors on the reference rows that are within `Outcomes.far`."""
WITHOUT = ""
"""The decision on every row of a model that decides nothing."""
_SEPARATOR = "."
_SEGMENT_SCORES, _SEGMENT_DECISIONS = "segment-scores.", "segment-decisions."


class Outcomes(msgspec.Struct, frozen=True):
    """How the answers compared with what the records turned out to be.

    confusion: rows by decision and true class [decisions, classes]; one column for a regression.
    wrong: rows by decision [decisions] whose label was not the true class, or whose value was off by more than `far`.
    hits: rows by decision [decisions] of the class that the score is for; empty for a regression.
    edges: where deciles of the score begin, without the first. deciles: see `measures.deciles`.
    knots: scores, and the share of hits at each, which isotonic regression gives [2, knots].
    auc, brier: NaN, and arrays empty, where the model has nothing to compute them from.
    """

    confusion: Array
    wrong: Array
    hits: Array
    edges: Array
    deciles: Array
    knots: Array
    auc: float
    brier: float
    far: float

    @property
    def happened(self) -> Array:
        """Rows by decision that turned out to be what is counted: hits, or for a regression what was far off."""
        return self.hits if len(self.hits) else self.wrong


class Segment(msgspec.Struct, frozen=True):
    """The answers by the groups of a field: rows by bin of the scores, and by decision.

    scores [groups, bins], without bins for a model without scores; decisions [groups, decisions].
    """

    scores: Array
    decisions: Array


class Evaluation(msgspec.Struct, frozen=True):
    """The answers on reference rows.

    held_out: whether the rows are other than those that the model was trained on. rows: how many.
    scores: None for a model without one. decisions: the rows with each; without missing ones.
    outcomes: None if the bundle was saved without labels.
    segments: by field that has groups, see `schema.groups`.
    """

    held_out: bool
    rows: int
    scores: Histogram | None
    decisions: Histogram
    outcomes: Outcomes | None
    segments: dict[str, Segment] = msgspec.field(default_factory=dict)


def scored_class(schema: Schema, classes: Sequence[str]) -> str | None:
    """The class that a decision's score is for, None if it is for the label or for no class at all."""
    decision = schema.outputs.decision
    if schema.task == "anomaly":
        return classes[0]
    if decision is None or not classes:
        return None
    return classes[1] if decision.score == MARGIN else decision.score


def decision_names(schema: Schema, classes: Sequence[str]) -> tuple[str, ...]:
    """What may be decided: the bands, else the classes; `WITHOUT` alone for a regression without bands."""
    decision = schema.outputs.decision
    bands = tuple(dict.fromkeys(band.label for band in decision.bands)) if decision else ()
    return bands or tuple(classes) or (WITHOUT,)


def class_codes(values: Sequence[Any], model: ModelInfo, classes: Sequence[str]) -> Array:
    """The positions of true classes [rows]; -1 for a value that is none.

    A class is given by its name, or as the model has it, as a number or as text.
    """
    known: dict[str, int] = {}
    for at, name in enumerate(classes):
        known.setdefault(str(name), at)
    for at, value in enumerate(model.classes):
        for text in (str(value), _text(value)):
            known.setdefault(text, at)
    return np.array([known.get(_text(value), -1) for value in values], np.intp)


def _text(value: Any) -> str:
    """A class as text: 1.0, which pandas makes of 1 beside missing values, and true as 1."""
    whole = isinstance(value, bool) or (isinstance(value, float) and value.is_integer())
    return str(int(value)) if whole else str(value)


def stored(evaluation: Evaluation | None) -> dict[str, Array]:
    """An evaluation as arrays by name; none for None."""
    if evaluation is None:
        return {}
    arrays: dict[str, Array] = {}
    for name, value in msgspec.structs.asdict(evaluation).items():
        if isinstance(value, Histogram | Outcomes):
            inner = msgspec.structs.asdict(value)
            arrays |= {f"{name}{_SEPARATOR}{key}": np.asarray(each) for key, each in inner.items()}
        elif isinstance(value, dict):
            for field, segment in value.items():
                arrays[f"{_SEGMENT_SCORES}{field}"] = segment.scores
                arrays[f"{_SEGMENT_DECISIONS}{field}"] = segment.decisions
        elif value is not None:
            arrays[name] = np.asarray(value)
    return arrays


def read(arrays: Mapping[str, Array]) -> Evaluation | None:
    """The evaluation in arrays by name; None if there are none. Raises ValueError or LookupError."""
    if not arrays:
        return None
    made = Evaluation(
        bool(arrays["held_out"]),
        int(arrays["rows"]),
        _histogram(arrays, "scores") if f"scores{_SEPARATOR}bounds" in arrays else None,
        _histogram(arrays, "decisions"),
        _outcomes(arrays) if f"outcomes{_SEPARATOR}confusion" in arrays else None,
        _segments(arrays),
    )
    _verify(made)
    return made


def _histogram(arrays: Mapping[str, Array], name: str) -> Histogram:
    bounds, counts, missing = (arrays[f"{name}{_SEPARATOR}{key}"] for key in Histogram.__struct_fields__)
    return Histogram(bounds, counts, int(missing))


def _segments(arrays: Mapping[str, Array]) -> dict[str, Segment]:
    fields = [name.removeprefix(_SEGMENT_SCORES) for name in arrays if name.startswith(_SEGMENT_SCORES)]
    return {
        field: Segment(arrays[f"{_SEGMENT_SCORES}{field}"], arrays[f"{_SEGMENT_DECISIONS}{field}"]) for field in fields
    }


def _outcomes(arrays: Mapping[str, Array]) -> Outcomes:
    found: dict[str, Any] = {key: arrays[f"outcomes{_SEPARATOR}{key}"] for key in Outcomes.__struct_fields__}
    return Outcomes(**{**found, **{key: float(found[key]) for key in ("auc", "brier", "far")}})


def _verify(made: Evaluation) -> None:
    """Raise ValueError if arrays do not fit one another."""
    names, outcomes = made.decisions.bounds, made.outcomes
    if made.decisions.counts.shape != names.shape:
        raise ValueError("expected a count for each decision")
    if made.scores is not None and len(made.scores.counts) != max(len(made.scores.bounds) - 1, 0):
        raise ValueError("expected a count for each bin of the scores")
    bins = 0 if made.scores is None else len(made.scores.counts)
    for segment in made.segments.values():
        groups = len(segment.decisions)
        if segment.decisions.shape != (groups, len(names)) or segment.scores.shape != (groups, bins):
            raise ValueError("expected counts for each group of a segment")
    if outcomes is None:
        return
    if outcomes.confusion.ndim != 2 or len(outcomes.confusion) != len(names) or outcomes.wrong.shape != names.shape:
        raise ValueError("expected outcomes for each decision")
    if outcomes.hits.shape not in (names.shape, (0,)) or outcomes.knots.shape[:1] != (2,):
        raise ValueError("expected hits for each decision, and knots [2, knots]")
