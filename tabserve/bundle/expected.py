"""A bundle's reference rows as a client sees them: the record it would send and the decision it should get."""

from __future__ import annotations

import math
from typing import Any

from tabserve.bundle import Bundle
from tabserve.bundle.tensors import LABEL, class_names, labels
from tabserve.schema.decisions import Decisions
from tabserve.schema.timestamps import date_of

Record = dict[str, Any]


def record(bundle: Bundle, row: int) -> Record:
    """A reference row as a record; a missing value is left out."""
    types = {field.name: field.type for field in bundle.schema.record}
    values = {name: column[row] for name, column in bundle.reference.records.items()}
    return {name: _json(types[name], value) for name, value in values.items() if not _missing(value)}


def decision(bundle: Bundle, row: int) -> dict[str, Any]:
    """The bundle's own answer for a reference row: those of `decision`, `score` and `label` that its schema gives."""
    model = bundle.manifest.model
    classes = class_names(bundle)
    decisions = Decisions(bundle.schema, model, classes)
    outputs = {name: values[row : row + 1] for name, values in bundle.reference.outputs.items()}
    if classes:
        outputs[LABEL] = labels(model, classes, outputs["predict"])
    names = {*decisions.names, LABEL} - {"reasons"}
    return {name: values[0] for name, values in decisions.decide(outputs, names).items()}


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _json(kind: str, value: Any) -> Any:
    if kind in ("category", "text"):
        return str(value)
    if kind == "boolean":
        return bool(value)
    if kind == "date":
        return date_of(value)
    return int(value) if kind == "integer" else float(value)
