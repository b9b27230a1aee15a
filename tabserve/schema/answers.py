"""What is answered about a record, in the order of its keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import repeat
from typing import Any

from tabserve.arrays import Array
from tabserve.schema.columns import Misfit

_ORDER = ("decision", "score", "label", "predict", "reasons")
ERROR = ("row", "field", "expected", "got")
"""The keys of an error; rows count from 0, and `field` is empty if the record as a whole does not fit."""


def names(decided: Collection[str], classes: Collection[str], targets: Sequence[str]) -> tuple[str, ...]:
    """The names in a record's answer: those of the schema's decisions, the label, and `predict` for several targets."""
    known = {*decided, *(["label"] if classes else []), *(["predict"] if targets else [])}
    return tuple(name for name in _ORDER if name in known)


def objects(made: Mapping[str, Array], targets: Sequence[str]) -> list[dict[str, Any]]:
    """One JSON object per record; targets by name, and reasons without the padding."""
    columns = {name: array.tolist() for name, array in made.items()}
    if "reasons" in columns:
        columns["reasons"] = [[text for text in texts if text] for texts in columns["reasons"]]
    if "predict" in columns:
        columns["predict"] = [dict(zip(targets, values, strict=True)) for values in columns["predict"]]
    return list(map(dict, map(zip, repeat(columns), zip(*columns.values(), strict=True))))


def errors(faults: Sequence[Misfit]) -> list[dict[str, Any]]:
    """One JSON object per fault."""
    return [dict(zip(ERROR, fault, strict=True)) for fault in faults]
