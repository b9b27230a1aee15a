"""The groups that records fall into by a field: a category's values, or the two of a boolean."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.schema.schema import Field

MISSING = "missing"


class Grouped(msgspec.Struct, frozen=True):
    """A field and its groups; the last is of records without a value."""

    field: Field
    groups: tuple[str, ...]

    def places(self, column: Array) -> Array:
        """The group of each value [rows]."""
        missing = len(self.groups) - 1
        if self.field.type == "boolean":
            return np.where(np.isnan(column), missing, column).astype(np.intp)
        places = {value: at for at, value in enumerate(self.groups[:-1])}
        return np.array([places.get(value, missing) for value in column.tolist()], np.intp)


def grouped(fields: Iterable[Field]) -> list[Grouped]:
    """Those of the fields that have groups: categories and booleans."""
    found = [(field, _groups(field)) for field in fields]
    return [Grouped(field, groups) for field, groups in found if groups]


def _groups(field: Field) -> tuple[str, ...]:
    if field.type == "category":
        return (*field.values, MISSING)
    return ("false", "true", MISSING) if field.type == "boolean" else ()
