"""JSON Schemas (2020-12) of a schema's records, and of the decisions on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tabserve.inference.contract import JsonSchema
from tabserve.schema import answers
from tabserve.schema.columns import LONGEST_ID
from tabserve.schema.decisions import Decisions
from tabserve.schema.schema import NOW, OTHER, TODAY, WHOLE_LIMIT, Field, Schema
from tabserve.schema.timestamps import EARLIEST, LATEST

FINITE: JsonSchema = {"type": ["number", "null"]}
"""A number of an answer, null if it is infinite."""
_TYPES: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}
_TIME = "ISO 8601, in UTC if it has no offset, or seconds since 1970"
_NOW = "the time of the request if it is absent or null"
_TODAY = "the day of the request, in UTC, if it is absent or null"
_AUDIT = "checked, and never seen by the model"


def record(schema: Schema, largest: float) -> JsonSchema:
    """The JSON Schema of a record. largest: up to where the model takes numbers; infinite if it takes all.

    A record that does not fit is refused, unless only the form of a time is at fault: a service reads more forms of
    ISO 8601 than `date-time`.
    """
    identity = {schema.id: _identity()} if schema.id else {}
    fields = {name: _field(field, largest) for name, field in schema.fields.items()}
    return {
        "type": "object",
        "properties": {**identity, **fields},
        "required": [field.name for field in schema.record if field.required],
        "additionalProperties": False,
    }


def decision(schema: Schema, decisions: Decisions, classes: Sequence[str]) -> JsonSchema:
    """The JSON Schema of a record's answer over V1. classes: names of the classes, in the model's order."""
    targets = schema.outputs.targets
    known: dict[str, Callable[[], JsonSchema]] = {
        "decision": lambda: _decision(schema, classes),
        "score": lambda: _score(schema, decisions),
        "label": lambda: one_of(classes) | {"description": "the class that the model predicts"},
        "predict": lambda: _object(dict.fromkeys(targets, FINITE)),
        "reasons": lambda: _reasons(schema),
    }
    identity = {schema.id: {"type": "string"}} if schema.id else {}
    return _object({**identity, **{name: known[name]() for name in answers.names(decisions.names, classes, targets)}})


def one_of(values: Sequence[bool | float | str]) -> JsonSchema:
    """The JSON Schema of one of these values, all of one type."""
    return {"type": _TYPES[type(values[0])], "enum": list(values)}


def _object(properties: JsonSchema) -> JsonSchema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _identity() -> JsonSchema:
    return {
        "type": ["string", "integer", "null"],
        "maxLength": LONGEST_ID,
        "description": "identifies the record; carried through",
    }


def _field(field: Field, largest: float) -> JsonSchema:
    schema = _of_type(field, largest)
    if not field.required:
        schema = _or_null(schema)
    notes = (
        field.description,
        f"in {field.unit}" if field.unit else None,
        _TIME if field.type == "timestamp" else None,
        _NOW if field.type == "timestamp" and field.default == NOW else None,
        _TODAY if field.type == "date" and field.default == TODAY else None,
        _AUDIT if field.use == "audit" else None,
    )
    description = "; ".join(note for note in notes if note)
    more = {
        "description": description,
        "x-unit": field.unit,
        "default": _plain(field.default) if isinstance(field.default, float) else field.default,
    }
    moments = (NOW, TODAY) if field.type in ("timestamp", "date") else ()
    return schema | {key: value for key, value in more.items() if value not in (None, "", *moments)}


def _of_type(field: Field, largest: float) -> JsonSchema:
    if field.type == "category":
        return _category(field)
    if field.type == "text":
        return {"type": "string", "maxLength": field.longest}
    if field.type == "timestamp":
        return {"type": ["string", "number"], "format": "date-time", "minimum": EARLIEST, "maximum": LATEST}
    if field.type == "date":
        return {"type": "string", "format": "date"}
    if field.type == "boolean":
        return {"type": "boolean"}
    return {"type": field.type, **_bounds(field, largest)}


def _category(field: Field) -> JsonSchema:
    known = one_of(field.values)
    taken: JsonSchema = {"type": "string"}
    if field.numbered:
        numbers = [int(value) for value in field.values if value != OTHER]
        taken = {"type": ["string", "number"]}
        known = taken | {"enum": [*field.values, *numbers]}
    return known if field.unknown != OTHER else {"anyOf": [known, taken]}


def _bounds(field: Field, largest: float) -> JsonSchema:
    low, high = field.bounds
    found = {"minimum": max(low, -largest), "maximum": min(high, largest)}
    return {key: _plain(value) for key, value in found.items() if math.isfinite(value)}


def _plain(value: float) -> float:
    """A whole number without a fraction, as people write it."""
    return int(value) if value.is_integer() and abs(value) <= WHOLE_LIMIT else value


def _or_null(schema: JsonSchema) -> JsonSchema:
    if "anyOf" in schema:
        return {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    values = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return schema | {"type": [*types, "null"]} | values


def _decision(schema: Schema, classes: Sequence[str]) -> JsonSchema:
    made = schema.outputs.decision
    bands = [band.label for band in made.bands] if made else []
    return one_of(list(dict.fromkeys(bands or classes)))


def _score(schema: Schema, decisions: Decisions) -> JsonSchema:
    made = schema.outputs.decision
    if decisions.of_probability:
        of = f"`{made.score}`" if made else "the label"
        return {"type": "number", "description": f"the probability of {of}, 0 to 1"}
    return FINITE | ({"description": f"`{made.score}`"} if made else {})


def _reasons(schema: Schema) -> JsonSchema:
    reasons = schema.outputs.reasons
    assert reasons is not None
    items: JsonSchema = {"type": "array", "items": {"type": "string"}, "maxItems": reasons.top}
    return items | {"description": "what pushed the score up, the strongest first"}
