"""The boxes of a form: one for each field of a record, or for each feature of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np

from tabserve.arrays import Features
from tabserve.bundle import Bundle, expected
from tabserve.bundle.manifest import FeatureSpec
from tabserve.schema.schema import OTHER, Field
from tabserve.schema.timestamps import moment

Kind: TypeAlias = Literal["number", "choice", "text", "time", "word"]
"""What is typed: a number, one of the options, any text, a time, or a text that is missing if it is empty."""

_KINDS: dict[str, Kind] = {
    "number": "number",
    "integer": "number",
    "boolean": "choice",
    "category": "choice",
    "text": "text",
    "timestamp": "time",
    "date": "word",
}
_FORMS = {"timestamp": "ISO 8601, UTC", "date": "YYYY-MM-DD"}
_LONG = 200
"""From how many characters on a text has several lines."""


class Box(msgspec.Struct, frozen=True):
    """One box. value: what is in it at first, the place of an option for a choice. empty: what it says if it is empty.

    named: what people read for each option.
    """

    name: str
    kind: Kind
    value: str = ""
    options: tuple[bool | str, ...] = ()
    named: tuple[str, ...] = ()
    required: bool = True
    hint: str = ""
    description: str = ""
    empty: str = ""
    long: bool = False


def of_fields(bundle: Bundle) -> list[Box]:
    """The boxes of a record, with the first reference record in them; first the id's, if records have one.

    A field that the decision log may not hold is left empty.
    """
    record = expected.record(bundle, 0)
    named = [bundle.schema.id] if bundle.schema.id else []
    identity = [
        Box(name, "word", required=False, hint="optional", description="identifies the record") for name in named
    ]
    return [*identity, *(_of_field(field, record) for field in bundle.schema.record)]


def of_features(bundle: Bundle) -> list[Box]:
    """The boxes of a model's features, with the first reference row in them."""
    specs = bundle.manifest.model.features
    return [
        _of_feature(spec, value) for spec, value in zip(specs, _first(specs, bundle.reference.features), strict=True)
    ]


def _of_field(field: Field, record: Mapping[str, Any]) -> Box:
    kind = _KINDS[field.type]
    options = (True, False) if field.type == "boolean" else field.values
    value = record.get(field.name) if field.logged == "keep" else None
    return Box(
        field.name,
        kind,
        _shown(field.type, value, options),
        options,
        tuple(_word(option) for option in options),
        field.required,
        _hint(field),
        field.description or "",
        _empty(field),
        field.type == "text" and field.longest > _LONG,
    )


def _shown(kind: str, value: Any, options: Sequence[bool | str]) -> str:
    """A value as it is in its box."""
    if value is None:
        return ""
    if kind in ("boolean", "category"):
        return str(options.index(value)) if value in options else ""
    if kind == "timestamp":
        return moment(value).isoformat().replace("+00:00", "Z")
    return _number(value) if kind in ("number", "integer") else str(value)


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))


def _word(option: bool | str) -> str:
    return str(option).lower() if isinstance(option, bool) else option


def _hint(field: Field) -> str:
    """What a field takes, in a few words."""
    logged = "" if field.logged == "keep" else "left empty here, as it is in the log"
    unknown = f"anything else is {OTHER}" if field.unknown == OTHER else ""
    optional = "" if field.required else "optional"
    return " · ".join(filter(None, [_range(field) or _FORMS.get(field.type, ""), unknown, optional, logged]))


def _range(field: Field) -> str:
    low, high = ("" if bound is None else f"{bound:,.12g}" for bound in (field.min, field.max))
    between = f"{low} to {high}" if low and high else f"from {low}" if low else f"up to {high}" if high else ""
    whole = "whole" if field.type == "integer" and not between else ""
    return " ".join(filter(None, [between or whole, field.unit]))


def _empty(field: Field) -> str:
    if field.default is not None:
        return f"default: {_word(field.default) if isinstance(field.default, bool | str) else _number(field.default)}"
    return "" if field.required else "not given"


def _of_feature(spec: FeatureSpec, value: Any) -> Box:
    if spec.type == "category":
        options = spec.values
        return Box(spec.name, "choice", _shown("category", value, options), options, options, empty="missing")
    if spec.type == "text":
        return Box(spec.name, "text", value or "", long=spec.max_length > _LONG)
    return Box(spec.name, "number", "" if math.isnan(value) else _number(value), empty="missing")


def _first(specs: Sequence[FeatureSpec], features: Features) -> list[Any]:
    """The first row's values: numbers, and categories as text, None if missing."""
    if isinstance(features, dict):
        return [features[spec.name][0] for spec in specs]
    row = [float(str(value)) for value in np.asarray(features)[0]]  # in FP32 as short as it can be written
    return [_decoded(spec, value) for spec, value in zip(specs, row, strict=True)]


def _decoded(spec: FeatureSpec, value: float) -> Any:
    """A matrix's value: of a category, it is the code."""
    if spec.type != "category":
        return value
    return None if math.isnan(value) else spec.values[int(value)]
