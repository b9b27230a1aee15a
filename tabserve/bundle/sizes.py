"""Compute how long a request may be from what the bundle's records and features can hold."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from tabserve.bundle.loading import Bundle
from tabserve.inference.settings import LARGEST_BODY_BYTES, S

LEAST_BODY_BYTES = 2**20
"""The least limit, however few and short the records: enough for white space and a client's own names."""
_NUMBER = 24
"""The longest number, `-1.2345678901234567e-308`."""
_TIMESTAMP = 40
_ESCAPE = 6
"""The bytes of a character that is written as an escape."""
_BETWEEN = 6
"""The bytes between values: quotes, colon, comma and white space."""


def with_body_limit(settings: S, bundle: Bundle) -> S:
    """The settings, where an unset `max_body_bytes` becomes what `max_rows` of the bundle's longest records need.

    It is at least LEAST_BODY_BYTES and at most LARGEST_BODY_BYTES.
    """
    if settings.max_body_bytes:
        return settings
    needed = settings.max_rows * longest(bundle)
    return msgspec.structs.replace(settings, max_body_bytes=min(max(needed, LEAST_BODY_BYTES), LARGEST_BODY_BYTES))


def longest(bundle: Bundle) -> int:
    """The most bytes of JSON that a record, or one row of the model's features, takes."""
    record = sum(_field(field.name, field.type, field.values, field.longest) for field in bundle.schema.record)
    features = bundle.manifest.model.features
    return max(record, sum(_field(each.name, each.type, each.values, each.max_length) for each in features))


def _field(name: str, kind: str, values: Sequence[str], characters: int) -> int:
    longest = max((len(json.dumps(value)) for value in values), default=0)
    if kind == "text":
        longest = max(longest, characters * _ESCAPE)
    return len(json.dumps(name)) + _BETWEEN + max(longest, _TIMESTAMP if kind in ("timestamp", "date") else _NUMBER)
