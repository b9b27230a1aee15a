"""Columns of records, checked against the schema, with defaults filled in."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tabserve.arrays import Array
from tabserve.inference.errors import InvalidRequest
from tabserve.inference.tensors import holds_all, holds_any
from tabserve.schema.schema import NOW, OTHER, TODAY, Field, Schema
from tabserve.schema.timestamps import DAY, EARLIEST, LATEST, seconds

Columns: TypeAlias = dict[str, Array]
"""One array [rows] per field.

Number, integer, boolean (0, 1), timestamp and date (seconds since 1970) are FP64, NaN where missing. Category and text
are `str` objects, None where a category is missing. Ids are the same, if records have them.
"""

HIDDEN = "a value that is not shown"
"""What errors say of a value that may not be logged."""
LONGEST_ID = 256
"""How many characters the id of a record may have."""
_MOST_VALUES, _MOST_CHARACTERS = 10, 40
_WORDS = ("category", "text")
_LARGEST = float(np.finfo(np.float64).max)
_NOUNS = {"number": "a number", "integer": "a whole number", "boolean": "true or false"}
INSTANTS = {"timestamp": "an ISO 8601 time or seconds since 1970", "date": "an ISO 8601 date, such as 2026-11-30"}
"""What is expected of a field that is a moment, by its type."""
_SIGNED = ("number", "timestamp")
"""The types whose zero may be negative; adding a negative zero changes no number."""
_STEPS = {"integer": 1.0, "date": DAY}
"""What the numbers of a type are multiples of."""


class Misfit(NamedTuple):
    """What of a record does not fit its schema; records count from 0, `expected` and `got` are for people."""

    record: int
    field: str
    expected: str
    got: str

    def __str__(self) -> str:
        """The error for a value: ``record 3, field `country`: expected one of DE, FR, IT, got "XX"``."""
        return f"{where(self.record, self.field)}: expected {self.expected}, got {self.got}"


class UnfitError(InvalidRequest):
    """A record does not fit."""

    def __init__(self, misfit: Misfit) -> None:
        super().__init__(str(misfit))
        self.misfit = misfit


class Sifted(NamedTuple):
    """The columns of the records that fit, their positions [rows], and every fault of the others, by record."""

    columns: Columns
    places: Array
    faults: list[Misfit]


class Checks:
    """A schema's checks of columns, compiled once: each is a few numpy calls for all numeric fields at once."""

    def __init__(self, schema: Schema, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.numeric = tuple(field for field in schema.record if field.type not in _WORDS)
        self.words = tuple(field for field in schema.record if field.type in _WORDS)
        self._names = tuple(field.name for field in self.numeric)
        bounds = np.array([_bounds(field) for field in self.numeric]).reshape(-1, 2)
        self._low, self._high = bounds[:, :1], bounds[:, 1:]
        self._optional = np.array([[not field.required] for field in self.numeric], dtype=bool).reshape(-1, 1)
        fractional = np.array([[field.type not in _STEPS] for field in self.numeric], dtype=bool).reshape(-1, 1)
        self._fractional = None if fractional.all() else fractional
        self._steps = np.array([[_STEPS.get(field.type, 1.0)] for field in self.numeric]).reshape(-1, 1)
        self._zeros = np.array([[-0.0 if field.type in _SIGNED else 0.0] for field in self.numeric]).reshape(-1, 1)
        self._defaults = [(i, field) for i, field in enumerate(self.numeric) if field.default is not None]
        self._allowed = {field.name: _allowed(field) for field in self.words if field.type == "category"}

    def columns(
        self, numbers: Array, words: Mapping[str, list[str | None]], given: Callable[[str, int], Any]
    ) -> Columns:
        """The columns of all fields, checked.

        numbers: FP64 [numeric fields, rows], NaN where missing; defaults are written into it. words: the categories
        and texts, None where missing.
        given: what the client sent for a field of a record, for the error.
        Raises InvalidRequest naming the first record and field that do not fit.
        """
        self._fill(numbers)
        for misfit in self._number_misfits(numbers, given):
            raise UnfitError(misfit)
        columns: Columns = dict(zip(self._names, numbers, strict=True))
        for field in self.words:
            for misfit in self._word_misfits(field, words[field.name]):
                raise UnfitError(misfit)
            columns[field.name] = np.array(self._words(field, words[field.name]), dtype=object)
        return columns

    def sift(
        self,
        numbers: Array,
        words: Mapping[str, list[str | None]],
        given: Callable[[str, int], Any],
        known: Sequence[Misfit] = (),
    ) -> Sifted:
        """The records that fit, and all faults of the others; arguments as for `columns`.

        known: faults that were found before, whose values are missing here; one without a field is all that is said of
        its record.
        """
        count = numbers.shape[1]
        if not known:
            try:
                return Sifted(self.columns(numbers, words, given), np.arange(count), [])
            except UnfitError:
                pass
        self._fill(numbers)
        found = list(self._number_misfits(numbers, given))
        for field in self.words:
            found += self._word_misfits(field, words[field.name])
        told = {(misfit.record, misfit.field) for misfit in known}
        found = [one for one in found if told.isdisjoint([(one.record, one.field), (one.record, "")])]
        faults = sorted([*known, *found], key=lambda misfit: misfit.record)
        fits = np.delete(np.arange(count), [misfit.record for misfit in faults])
        kept = {name: [values[at] for at in fits.tolist()] for name, values in words.items()}
        return Sifted(self.columns(numbers[:, fits], kept, given), fits, faults)

    def _number_misfits(self, numbers: Array, given: Callable[[str, int], Any]) -> Iterator[Misfit]:
        fits = (numbers >= self._low) & (numbers <= self._high)
        if self._fractional is not None:
            fits &= self._fractional | (np.floor(numbers / self._steps) * self._steps == numbers)
        if holds_all(fits):
            return
        fits |= np.isnan(numbers) & self._optional
        for record, index in np.argwhere(~fits.T).tolist():
            field = self.numeric[index]
            yield Misfit(record, field.name, expectation(field), told(field, given(field.name, record)))

    def _fill(self, numbers: Array) -> None:
        """Write the defaults, and 0 for a negative zero that is a whole number or false."""
        np.add(numbers, self._zeros, numbers)
        for index, field in self._defaults:
            missing = np.isnan(numbers[index])
            if holds_any(missing):
                numbers[index, missing] = self._filling(field)

    def _filling(self, field: Field) -> float:
        if field.type == "timestamp" and field.default == NOW:
            return self._clock()
        if field.type == "date" and field.default == TODAY:
            return self._clock() // DAY * DAY
        return _number(field.default)

    def _word_misfits(self, field: Field, values: list[str | None]) -> Iterator[Misfit]:
        if field.type == "text":
            yield from _text_misfits(field, values)
        elif field.unknown == "error" and not self._allowed[field.name].issuperset(values):
            allowed = self._allowed[field.name]
            for record, value in enumerate(values):
                if value not in allowed:
                    yield Misfit(record, field.name, expectation(field), told(field, value))

    def _words(self, field: Field, values: list[str | None]) -> Sequence[str | None]:
        """The values, with the default for missing ones, and `other` for unknown categories."""
        default = field.default if isinstance(field.default, str) else "" if field.type == "text" else None
        if field.type == "category" and not self._allowed[field.name].issuperset(values):
            allowed = self._allowed[field.name]
            values = [value if value in allowed else OTHER for value in values]
        if default is not None and None in values:
            values = [default if value is None else value for value in values]
        return values


def _text_misfits(field: Field, values: list[str | None]) -> Iterator[Misfit]:
    for record, value in enumerate(values):
        if value is None or (len(value) <= field.longest and value.isascii()):
            continue
        if len(value) > field.longest:
            yield Misfit(record, field.name, expectation(field), f"{len(value)} characters")
        elif _has_surrogate(value):
            yield Misfit(record, field.name, "UTF-8", "a lone surrogate")


def _has_surrogate(text: str) -> bool:
    """Whether a text can't be encoded as UTF-8."""
    return not text.isascii() and any("\ud800" <= each <= "\udfff" for each in text)


def firsts(faults: Sequence[Misfit]) -> list[Misfit]:
    """The first fault of each record, by record."""
    first = {misfit.record: misfit for misfit in reversed(faults)}
    return [first[record] for record in sorted(first)]


def identities(ids: Sequence[str | int | None]) -> Array:
    """The ids of records as text [rows], None for a missing or empty one."""
    return np.array([None if value is None or value == "" else str(value) for value in ids], object)


def identity_misfits(name: str, ids: Array) -> Iterator[Misfit]:
    """What is wrong with ids, as `identities` gives them. name: their key in records."""
    for record, value in enumerate(ids.tolist()):
        if value is not None and len(value) > LONGEST_ID:
            yield Misfit(record, name, f"at most {LONGEST_ID} characters", str(len(value)))
        elif value is not None and _has_surrogate(value):
            yield Misfit(record, name, "UTF-8", "a lone surrogate")


def rows(columns: Columns) -> int:
    """How many records the columns hold."""
    return len(next(iter(columns.values())))


def expectation(field: Field) -> str:
    """A field's expected values in words, with bounds and unit; long lists of values are shortened."""
    if field.type == "category":
        values = ", ".join(_shortened(value) for value in field.values[:_MOST_VALUES])
        more = len(field.values) - _MOST_VALUES
        return f"one of {values}{f', … ({more} more)' if more > 0 else ''}"
    if field.type in INSTANTS:
        return INSTANTS[field.type]
    if field.type == "text":
        return f"text of at most {field.longest} characters"
    unit = f" {field.unit}" if field.unit else ""
    if field.min is not None and field.max is not None:
        return f"{_NOUNS[field.type]} from {field.min:g} to {field.max:g}{unit}"
    if field.min is not None:
        return f"{_NOUNS[field.type]} of at least {field.min:g}{unit}"
    if field.max is not None:
        return f"{_NOUNS[field.type]} of at most {field.max:g}{unit}"
    return f"{_NOUNS[field.type]}{f' of{unit}' if unit else ''}"


def where(record: int, field: str) -> str:
    """The place of a value: ``record 3, field `country` ``; records count from 0."""
    return f"record {record}, field `{field}`"


def word(value: str | float) -> str:
    """A category as text: a number without a decimal point if it is whole."""
    if isinstance(value, str):
        return value
    return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)


def told(field: Field, value: Any) -> str:
    """A field's value as `shown`, for errors; not that of a field which the decision log may not hold."""
    return shown(value) if field.logged == "keep" or value is None else HIDDEN


def shown(value: Any) -> str:
    """A value as JSON, shortened, and always encodable as UTF-8."""
    if isinstance(value, str):
        return json.dumps(_shortened(value), ensure_ascii=False)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
        return str(int(value))
    return _shortened("null" if value is None else str(value))


def _shortened(text: str) -> str:
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"


def _bounds(field: Field) -> tuple[float, float]:
    """A field's bounds, inclusive and finite, so that an infinity is out of bounds."""
    if field.type in INSTANTS:
        return EARLIEST, LATEST
    low, high = field.bounds
    return max(low, -_LARGEST), min(high, _LARGEST)


def _allowed(field: Field) -> frozenset[str | None]:
    return frozenset(field.values) | (frozenset() if field.required else {None})


def _number(default: float | bool | str | None) -> float:
    instant = seconds(default) if isinstance(default, str) else default
    return math.nan if instant is None else float(instant)
