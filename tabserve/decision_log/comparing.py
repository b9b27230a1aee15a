"""Compare logged decisions with those that were made again, bit by bit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tabserve.arrays import Array

OUTPUTS = "outputs"
ANSWERS = ("score", "decision", "label", "predict", "reasons", "codes")
"""The columns that are compared, besides the model's outputs."""


class Difference(msgspec.Struct, frozen=True, rename={"becomes": "is"}):
    """What differs in a record: a column, its logged value, and the one that was made again."""

    what: str
    was: Any
    becomes: Any


Differences: TypeAlias = dict[int, list[Difference]]
"""By the record's position."""


def differences(logged: pa.RecordBatch, made: pa.RecordBatch) -> Differences:
    """What differs between two batches of the same records; columns that only one of them has are left out.

    An output or a text that was not logged is not compared.
    """
    found: Differences = defaultdict(list)
    for what, was, becomes in _pairs(logged, made):
        for at in np.flatnonzero(_unequal(was, becomes)).tolist():
            found[at].append(Difference(what, was[at].as_py(), becomes[at].as_py()))
    return dict(found)


def _pairs(logged: pa.RecordBatch, made: pa.RecordBatch) -> Iterator[tuple[str, pa.Array, pa.Array]]:
    outputs, again = logged.column(OUTPUTS), made.column(OUTPUTS)
    for field in outputs.type:
        if again.type.get_field_index(field.name) >= 0:
            was = outputs.field(field.name)
            yield f"{OUTPUTS}.{field.name}", was, _where_logged(was, again.field(field.name))
    for name in ANSWERS:
        if name in logged.schema.names and name in made.schema.names:
            was, becomes = logged.column(name), made.column(name)
            yield name, was, _where_logged(was, becomes) if pa.types.is_list(was.type) else becomes


def _where_logged(was: pa.Array, becomes: pa.Array) -> pa.Array:
    """The values at the places that are logged, null at the others."""
    return pc.if_else(was.is_valid(), becomes, pa.scalar(None, becomes.type))


def _unequal(was: pa.Array, becomes: pa.Array) -> Array:
    """Where two columns [rows] differ; a null equals only a null, and numbers only those of the same bits."""
    if pa.types.is_struct(was.type):
        parts = [_unequal(was.field(at), becomes.field(at)) for at in range(was.type.num_fields)]
        return np.asarray(np.logical_or.reduce([_nulls_differ(was, becomes), *parts]))
    if pa.types.is_list(was.type):
        return _lists_differ(was, becomes)
    return _nulls_differ(was, becomes) | _values_differ(was, becomes)


def _nulls_differ(was: pa.Array, becomes: pa.Array) -> Array:
    return np.asarray(_numpy(was.is_valid()) != _numpy(becomes.is_valid()))


def _values_differ(was: pa.Array, becomes: pa.Array) -> Array:
    if pa.types.is_floating(was.type):
        return np.asarray(_bits(was) != _bits(becomes))
    return _numpy(pc.fill_null(pc.not_equal(was, becomes), False))


def _lists_differ(was: pa.Array, becomes: pa.Array) -> Array:
    """Where lists differ; a list of another length differs, and only lists of equal lengths are looked into."""
    lengths = [_numpy(pc.fill_null(pc.list_value_length(each), -1)) for each in (was, becomes)]
    differs = np.asarray(lengths[0] != lengths[1])
    same = pa.array(np.flatnonzero(~differs))
    parts = [each.take(same).flatten() for each in (was, becomes)]
    rows = np.repeat(np.flatnonzero(~differs), np.maximum(lengths[0][~differs], 0))
    differs[rows[_unequal(*parts)]] = True
    return differs


def _bits(values: pa.Array) -> Array:
    return _numpy(pc.fill_null(values, 0.0)).view(np.int64)


def _numpy(values: pa.Array) -> Array:
    found: Array = values.to_numpy(zero_copy_only=False)
    return found
