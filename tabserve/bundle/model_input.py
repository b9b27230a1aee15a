"""Turn records' columns into the model's input, as the transformer sends it and the predictor accepts it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from typing import NamedTuple, TypeAlias

import numpy as np

from tabserve.arrays import Array, Features
from tabserve.bundle.loading import Bundle
from tabserve.bundle.manifest import ModelInfo
from tabserve.inference.errors import InvalidRequest
from tabserve.inference.tensors import DATATYPES, holds_all
from tabserve.schema.columns import HIDDEN, Columns, Misfit, UnfitError, rows
from tabserve.schema.features import derive, matrix

Preprocess: TypeAlias = Callable[[dict[str, Array]], Array]
"""A fitted preprocessor, from feature columns to the model's matrix."""


class Fitting(NamedTuple):
    """The features of the rows that a model accepts, their positions [rows], and the first fault of each other row."""

    features: Features
    places: Array
    faults: list[Misfit]


def fitting(columns: Columns, make: Callable[[Columns], Features], most: int | None = None) -> Fitting:
    """Make the features of those rows that the model accepts; the others are found by halving.

    make: raises InvalidRequest if the model does not accept a row. most: how many rows are looked for; if there are
    more, the error for the first is raised.
    """
    count = rows(columns)
    try:
        return Fitting(make(columns), np.arange(count), [])
    except InvalidRequest:
        faults = list(islice(_refused(columns, 0, count, make), None if most is None else most + 1))
        if most is not None and len(faults) > most:
            raise
    fits = np.delete(np.arange(count), [fault.record for fault in faults])
    return Fitting(make({name: column[fits] for name, column in columns.items()}), fits, faults)


def _refused(columns: Columns, start: int, end: int, make: Callable[[Columns], Features]) -> Iterator[Misfit]:
    try:
        make({name: column[start:end] for name, column in columns.items()})
    except InvalidRequest as error:
        if end - start == 1:
            if isinstance(error, UnfitError):
                yield error.misfit._replace(record=start)
            else:
                yield Misfit(start, "", "a record the model accepts", str(error))
            return
        middle = (start + end) // 2
        yield from _refused(columns, start, middle, make)
        yield from _refused(columns, middle, end, make)


class RecordFeatures:
    """Makes a model's features from the checked columns of records. preprocess: the bundle's, None if it has none."""

    def __init__(self, bundle: Bundle, preprocess: Preprocess | None) -> None:
        self._schema, self._model, self._preprocess = bundle.schema, bundle.manifest.model, preprocess
        self._dtype = DATATYPES[self._model.datatype]
        logged = {name for name, field in self._schema.fields.items() if field.logged == "keep"}
        self._hidden = {name for name, of in self._schema.sources.items() if not of <= logged}
        self._as_matrix = self._model.input == "matrix" or all(spec.type == "number" for spec in self._model.features)

    def __call__(self, columns: Columns) -> Features:
        """A matrix in the model's datatype, or a column per feature if some are words.

        Raises InvalidRequest if a number is beyond the range of the model's datatype.
        """
        features = derive(self._schema, columns)
        if self._preprocess is not None:
            made = self._preprocess(features) if rows(columns) else np.empty((0, len(self._model.features)))
            return made.astype(self._dtype, copy=False)
        return self._matrix(features) if self._as_matrix else features

    def _matrix(self, features: Columns) -> Array:
        try:
            return matrix(features, self._model.features, self._dtype)
        except UnfitError as error:
            if error.misfit.field in self._hidden:
                raise UnfitError(error.misfit._replace(got=HIDDEN)) from None
            raise


def largest(model: ModelInfo) -> float:
    """The largest number that a model takes.

    In a range of its own, it is the range's last one; otherwise, the last that its datatype rounds to a finite number.
    """
    limit = float(np.finfo(DATATYPES[model.range or model.datatype]).max)
    if model.datatype == "FP64" or model.range not in ("", model.datatype):
        return limit
    dtype = DATATYPES[model.datatype].type
    step = limit - float(np.nextafter(dtype(limit), dtype(0)))
    return math.nextafter(limit + step / 2, 0)


class ModelInput:
    """Accepts the features of one model, or raises InvalidRequest naming feature and row.

    may_miss: the features that may have no value.
    """

    def __init__(self, model: ModelInfo, may_miss: Collection[str]) -> None:
        self._model, self._may_miss = model, may_miss
        self._names = [spec.name for spec in model.features]
        self._dtype = DATATYPES[model.datatype]
        self._required = [at for at, name in enumerate(self._names) if name not in may_miss]
        self._codes = [(at, len(spec.values)) for at, spec in enumerate(model.features) if spec.type == "category"]
        self._largest = largest(model)
        self._narrow = model.range not in ("", model.datatype)

    def of_features(self, features: Features) -> Features:
        """The features from those of records."""
        return self.of_columns(features) if isinstance(features, dict) else self.of_matrix(features, "record")

    def of_matrix(self, found: Array, source: str) -> Features:
        """The features from a matrix in the model's datatype. source: the name of the matrix in errors."""
        if self._codes or not self._holds(found):
            self._refuse_beyond(source, found)
            self._check_values(found)
        if self._model.input == "matrix":
            return found
        return {name: found[:, at] for at, name in enumerate(self._names)}

    def of_columns(self, columns: dict[str, Array]) -> Features:
        """The features from one column each: numbers as FP64, words as `str` objects, None if missing."""
        numbers = [column for column in columns.values() if column.dtype != object]
        if numbers and not self._holds(np.concatenate(numbers)):
            for name, column in columns.items():
                if column.dtype != object:
                    self._check_numbers(name, column)
        return columns if self._model.input == "columns" else matrix(columns, self._model.features, self._dtype)

    def missing(self, name: str, row: int) -> InvalidRequest:
        """The error for a feature without a value that must have one."""
        return InvalidRequest(f"feature `{name}`: expected a value, got none at row {row}")

    def _holds(self, numbers: Array) -> bool:
        """Whether all are numbers that the model takes, and none is missing."""
        return holds_all(np.abs(numbers) <= self._largest if self._narrow else np.isfinite(numbers))

    def _check_values(self, matrix: Array) -> None:
        """Raise if a required value is missing, or a code belongs to no category."""
        if self._required and np.isnan(matrix).any():
            gaps = np.isnan(matrix[:, self._required])
            for row, at in np.argwhere(gaps)[:1].tolist():
                raise self.missing(self._names[self._required[at]], row)
        for at, count in self._codes:
            codes = matrix[:, at]
            wrong = (codes < 0) | (codes >= count) | (codes != np.floor(codes)) & ~np.isnan(codes)
            for row in np.flatnonzero(wrong)[:1]:
                expected = f"expected a code from 0 to {count - 1}"
                raise InvalidRequest(f"feature `{self._names[at]}`: {expected} at row {row}")

    def _check_numbers(self, name: str, column: Array) -> None:
        self._refuse_beyond(name, column)
        if name not in self._may_miss:
            for row in np.flatnonzero(np.isnan(column))[:1]:
                raise self.missing(name, row)

    def _refuse_beyond(self, source: str, array: Array) -> None:
        """Raise if a number is infinite, or too large for the model."""
        for at in np.argwhere(np.abs(array) > self._largest)[:1].tolist():
            text = f"expected finite numbers within ±{self._largest:.3g}, got one out of range at {at}"
            raise InvalidRequest(f"input `{source}`: {text}")
