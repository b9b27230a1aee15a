"""Turn what a client sends, records or plain tensors, into the predictor's inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np

from tabserve.arrays import Array, Features
from tabserve.bundle import Bundle
from tabserve.bundle.model_input import ModelInput, Preprocess, RecordFeatures, fitting
from tabserve.bundle.tensors import MATRIX, may_miss
from tabserve.inference.bounds import Bounds
from tabserve.inference.errors import InvalidRequest, RequestTooLarge, quoted
from tabserve.inference.tensors import DATATYPES, Tensor
from tabserve.schema.columns import Columns, Misfit, Sifted, firsts, rows
from tabserve.schema.numbers import NumberRecords, are_all
from tabserve.schema.records import Records

MOST_REFUSED = 100
"""How many records that fit the schema, but not the model, are told from the others in one request."""


class Taken(NamedTuple):
    """The predictor's inputs, and the ids of the records that they are made from; None if no record has one.

    places: the positions in the request of the records that fit; None if all do. faults: of the others.
    columns: of those records; None if the inputs are the client's own tensors, or columns were not wanted.
    """

    tensors: tuple[Tensor, ...]
    ids: Array | None = None
    places: Array | None = None
    faults: Sequence[Misfit] = ()
    columns: Columns | None = None


class Inputs:
    """Makes the predictor's inputs from one bundle's records.

    preprocess: the bundle's preprocessor, None if it has none. max_rows: more records are a RequestTooLarge.
    with_columns: whether the columns of all records are wanted; else there are none where records are the matrix.
    Anything else that does not fit is an InvalidRequest naming record and field.
    """

    def __init__(
        self, bundle: Bundle, preprocess: Preprocess | None, max_rows: int, *, with_columns: bool = False
    ) -> None:
        self._bundle = bundle
        self._schema = bundle.schema
        self._model = bundle.manifest.model
        self._features = RecordFeatures(bundle, preprocess)
        self._max_rows = max_rows
        self._records = Records(bundle.schema)
        self._dtype = DATATYPES[self._model.datatype]
        self._fields = frozenset(spec.name for spec in self._records.tensor_specs)
        self._with_columns = with_columns
        self._numbers = self._number_records() if preprocess is None else None
        self._plain = (frozenset({MATRIX}), frozenset(spec.name for spec in self._model.features))
        width = max(len(self._fields), len(self._model.features))
        self.bounds = Bounds(max_rows, width=width, inputs=2 * width)  # one that comes twice is named

    @cached_property
    def _accepted(self) -> ModelInput:
        return ModelInput(self._model, may_miss(self._bundle))

    def from_tensors(self, tensors: Sequence[Tensor]) -> Taken:
        """The predictor's inputs, made from columns of records; tensors that already are its inputs stay unchanged."""
        names = frozenset(tensor.name for tensor in tensors)
        if self._are_plain(names):
            self._check_plain(tensors)
            return Taken(tuple(tensors))
        if MATRIX in names and MATRIX not in self._fields:
            other = next(tensor.name for tensor in tensors if tensor.name != MATRIX)
            raise InvalidRequest(f"inputs: expected `{MATRIX}` alone, got {quoted(other)} as well")
        return self._from_columns(self._records.from_tensors(tensors))

    def sift_tensors(self, tensors: Sequence[Tensor]) -> Taken:
        """The predictor's inputs, made from those of columns of records that fit, and all faults of the others."""
        if self._are_plain(frozenset(tensor.name for tensor in tensors)):
            raise InvalidRequest("on_error: expected records, with an input for each field, to go with `record`")
        return self._sifted(self._records.sift_tensors(tensors))

    def sift_body(self, body: bytes) -> Taken:
        """The predictor's inputs, made from those records of a V1 body that fit, and all faults of the others."""
        return self._sifted(self._records.sift(body))

    def from_body(self, body: bytes) -> Taken:
        """The predictor's inputs, made from a V1 body of records."""
        if self._numbers is not None:
            made = self._numbers.decode(body)
            self._check_count(len(made))
            if self._with_columns:
                return self._from_numbers(made)
            return Taken((Tensor(MATRIX, self._model.datatype, made),))
        return self._from_columns(self._records.decode(body))

    def _from_numbers(self, made: Array) -> Taken:
        """The matrix in the model's datatype, and the columns in FP64."""
        matrix = Tensor(MATRIX, self._model.datatype, made.astype(self._dtype, copy=False))
        return Taken((matrix,), columns=dict(zip(self._schema.fields, made.T, strict=True)))

    def _sifted(self, sifted: Sifted) -> Taken:
        columns, places, faults = sifted
        self._check_count(len(places) + len({fault.record for fault in faults}))
        if len(faults) > self._max_rows:
            faults = firsts(faults)
        made = fitting(columns, self._made, MOST_REFUSED)
        more = [fault._replace(record=int(places[fault.record])) for fault in made.faults]
        if more:
            columns = {name: column[made.places] for name, column in columns.items()}
        every = sorted([*faults, *more], key=_record)
        return Taken(self._tensors(made.features), self._ids(columns), places[made.places], every, columns)

    def _made(self, columns: Columns) -> Features:
        """The features of records, as the predictor accepts them."""
        features = self._features(columns)
        self._accepted.of_features(features)
        return features

    def _number_records(self) -> NumberRecords | None:
        """A reader for records that are the model's matrix as they are; None if they are not."""
        schema = self._schema
        if schema.id is not None:
            return None
        same = [spec.name for spec in self._model.features] == list(schema.features) == list(schema.fields)
        if not (same and are_all(schema, self._dtype)):
            return None
        return NumberRecords(schema, self._records, np.dtype(np.float64) if self._with_columns else self._dtype)

    def _are_plain(self, names: frozenset[str]) -> bool:
        """Whether inputs of these names are the predictor's own."""
        return names in self._plain and not names <= self._fields

    def _check_plain(self, tensors: Sequence[Tensor]) -> None:
        """Refuse tensors of shapes that the predictor would refuse: it should not even get them."""
        for tensor in tensors:
            width = len(self._model.features) if tensor.name == MATRIX else 1
            shape = tensor.array.shape
            if prod(shape[1:]) != width or len(shape) > 2:
                expected = f"[-1, {width}]" if tensor.name == MATRIX else "[-1] or [-1, 1]"
                raise InvalidRequest(f"input `{tensor.name}`: expected shape {expected}, got {list(shape)}")

    def _check_count(self, count: int) -> None:
        if count > self._max_rows:
            raise RequestTooLarge(f"expected at most {self._max_rows} records, got {count}")

    def _from_columns(self, columns: Columns) -> Taken:
        self._check_count(rows(columns))
        return Taken(self._tensors(self._features(columns)), self._ids(columns), columns=columns)

    def _ids(self, columns: Columns) -> Array | None:
        return columns[self._schema.id] if self._schema.id else None

    def _tensors(self, features: Features) -> tuple[Tensor, ...]:
        if isinstance(features, dict):
            return _one_each(features)
        return (Tensor(MATRIX, self._model.datatype, features),)


def _record(fault: Misfit) -> int:
    return fault.record


def _one_each(features: Mapping[str, Array]) -> tuple[Tensor, ...]:
    """One tensor per feature; a missing category is an empty string, because BYTES has no null."""
    return tuple(
        Tensor(name, "BYTES", _present(column)) if column.dtype == object else Tensor(name, "FP64", column)
        for name, column in features.items()
    )


def _present(column: Array) -> Array:
    present = column.copy()
    present[[value is None for value in column.tolist()]] = ""
    return present
