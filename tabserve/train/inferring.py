"""Infer the fields of a schema from a table: types, ranges, categories, and what may be missing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from tabserve.bundle.errors import BundleError
from tabserve.schema.misfits import nearest
from tabserve.schema.schema import WHOLE_LIMIT, Task
from tabserve.schema.timestamps import is_date, seconds
from tabserve.train.tables import Table

MOST_VALUES = 256
"""The most categories of a field."""
_MOST_CLASSES = 20
_MOST_CODES = 10
_LARGE = 1e16
"""From here on whole numbers are written with an exponent."""
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,15}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_ZEROS = re.compile(r"-?0[0-9]")
_DAY, _MOMENT = re.compile(r"\d{4}-\d\d-\d\d"), re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:.*")
_IDENTITY = re.compile(r"(.*[_ -])?id|.*[a-z]Id", re.IGNORECASE)
_MARKERS = frozenset({"?", "-", "na", "n/a", "nan", "null", "none", "missing", "unknown"})


class Inferred(NamedTuple):
    """A field as schema.yaml has it, and a note about it."""

    field: dict[str, Any]
    note: str = ""


class Target(NamedTuple):
    """The task, and the names of the classes in the order that scikit-learn gives them, none for a regression."""

    task: Task
    classes: tuple[str, ...]


class Draft(NamedTuple):
    """What a table's columns are: fields, the name of the id if there is one, and notes on columns left out."""

    fields: list[Inferred]
    identity: str | None
    left_out: list[str]


def fields(table: Table, target: str | None = None) -> Draft:
    """The fields of a table's records; the target is none of them. Raises BundleError."""
    found = Draft([], identity(table, target), [])
    for name, values in table.columns.items():
        if name in (target, found.identity):
            continue
        present = [value for value in map(_plain, values) if value is not None]
        if not present:
            found.left_out.append(f"`{_named(name)}` is empty in every record, and left out")
            continue
        field, note = _of_texts(present) if table.texts else _field(name, present)
        required = {} if len(present) == len(values) else {"required": False}
        found.fields.append(Inferred({"name": _named(name), **field, **required}, note))
    if not found.fields:
        raise BundleError("records", "expected a column besides the target and the id, got none", "Give more columns.")
    return found


def identity(table: Table, target: str | None = None) -> str | None:
    """The first column that is named as an id, and has a different text or whole number in every record."""
    for name, values in table.columns.items():
        whole = all(isinstance(value, str) or type(value) is int for value in values)
        if name != target and _IDENTITY.fullmatch(name) and whole and len(set(values)) == len(values) > 1:
            return name
    return None


def task(table: Table, target: str) -> Target:
    """What a model learns from the target. Raises BundleError if there is no such column, or it misses values."""
    if target not in table.columns:
        problem = f"there is no column `{target}`{nearest(target, table.columns)}"
        raise BundleError("target", problem, f"Give one of {', '.join(table.columns)}.")
    values = [_plain(value) for value in table.columns[target]]
    if None in values:
        remedy = "Leave out the records without it: a model can't learn from them."
        raise BundleError("target", f"`{target}` is missing in record {values.index(None)}", remedy)
    if table.texts and all(_WHOLE.fullmatch(value) for value in values):
        values = [int(value) for value in values]
    distinct = sorted(set(values), key=lambda value: (isinstance(value, str), value))
    if len(distinct) < 2:
        raise BundleError("target", f"`{target}` is {distinct[0]} in every record", "Give records of several classes.")
    numbers = _fractional(distinct, texts=table.texts)
    if len(distinct) > 2 and (numbers or len(distinct) > _MOST_CLASSES):
        return Target("regression", ())
    return Target("binary" if len(distinct) == 2 else "multiclass", tuple(map(_class, distinct)))


def _fractional(values: Sequence[Any], *, texts: bool) -> bool:
    """Whether the values are numbers, some of them with fractions."""
    if any(isinstance(value, float) and not value.is_integer() for value in values):
        return True
    return texts and not isinstance(values[0], int) and all(_is_number(str(value)) for value in values)


def _class(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool | float) else str(value)


def _named(name: str) -> str:
    if re.search(r'["\\`\x00-\x1f]', name):
        problem = f"column {name!r}: expected a name without quotes, backslashes and backticks"
        raise BundleError("records", problem, "Rename the column.")
    return name


def _plain(value: Any) -> Any:
    """A value of a table as a bool, int, float, text, date or datetime; None for NaN."""
    if isinstance(value, Decimal):
        value = float(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def _field(name: str, values: Sequence[Any]) -> Inferred:
    if all(isinstance(value, bool) for value in values):
        return Inferred({"type": "boolean"})
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return _of_numbers([float(value) for value in values])
    if all(isinstance(value, datetime) for value in values):
        midnight = all(value.tzinfo is None and value.isoformat().endswith("T00:00:00") for value in values)
        return Inferred({"type": "date" if midnight else "timestamp"})
    if all(isinstance(value, date) and not isinstance(value, datetime) for value in values):
        return Inferred({"type": "date"})
    if all(isinstance(value, str) for value in values):
        return _of_times(values) or _of_words(values)
    kinds = ", ".join(sorted({type(value).__name__ for value in values}))
    problem = f"column `{name}`: expected numbers, booleans, texts or times, got {kinds}"
    raise BundleError("records", problem, "Leave the column out.")


def _of_texts(values: Sequence[str]) -> Inferred:
    if {value.lower() for value in values} <= {"true", "false"}:
        return Inferred({"type": "boolean"})
    numbers = [value for value in values if _is_number(value)]
    others = {value for value in values if not _is_number(value)}
    if any(map(_ZEROS.match, values)) and not others:  # codes, whose zeros mean something
        return _of_words(values)
    if not others:
        return _of_numbers(list(map(float, values)))
    if found := _of_times(values):
        return found
    if numbers and all(other.lower() in _MARKERS for other in others):
        field, _ = _of_numbers(list(map(float, numbers)))
        listed = ", ".join(f'"{other}"' for other in sorted(others))
        return Inferred({**field, "required": False}, f"the data also have {listed}: leave these cells empty")
    return _of_words(values)


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


def _of_times(values: Sequence[str]) -> Inferred | None:
    if all(_DAY.fullmatch(value) and is_date(value) for value in values):
        return Inferred({"type": "date"})
    if all(_MOMENT.fullmatch(value) and seconds(value) is not None for value in values):
        return Inferred({"type": "timestamp"})
    return None


def _of_numbers(values: Sequence[float]) -> Inferred:
    """Bounds rounded outwards, so that they catch another unit or a slip, and not the next larger record."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    whole = all(value.is_integer() and abs(value) <= WHOLE_LIMIT for value in values)
    bounds = {"min": -outward(-low) if low < 0 else 0, "max": outward(high) if high > 0 else 0}
    given: Mapping[str, Any] = bounds if high > low and len(finite) == len(values) else {}
    note = f"{_short(low)} to {_short(high)} in the data; add unit: …"
    distinct = sorted(set(finite))
    if whole and len(distinct) <= min(_MOST_CODES, len(values) // 2):
        codes = ", ".join(map(_short, distinct))
        note = f"{_short(low)} to {_short(high)} in the data; if codes: type: category, values: [{codes}]"
    return Inferred({"type": "integer" if whole else "number", **given}, note)


def outward(value: float) -> float | int:
    """The next of 1, 2 and 5 times a power of ten that is at least the value, which is above 0."""
    power = 10.0 ** math.floor(math.log10(value))
    found = next((step * power for step in (1, 2, 5, 10) if value <= step * power < math.inf), value)
    return int(found) if 1 <= found < _LARGE and float(found).is_integer() else found


def _short(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < _LARGE else f"{value:.6g}"


def _of_words(values: Sequence[str]) -> Inferred:
    distinct = sorted(set(values))
    if len(distinct) <= min(MOST_VALUES, max(2, len(values) // 2)):
        return Inferred({"type": "category", "values": distinct})
    note = "every value is different" if len(distinct) == len(values) else f"{len(distinct)} different values"
    return Inferred({"type": "text"}, f"{note}; leave it out of `features` if it only identifies the record")
