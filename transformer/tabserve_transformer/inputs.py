"""Turn what a client sends, records or plain tensors, into the predictor's inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

from tabserve.arrays import Array
from tabserve.bundle import Bundle
from tabserve.bundle.model_input import Preprocess, RecordFeatures
from tabserve.bundle.tensors import MATRIX
from tabserve.inference.bounds import Bounds
from tabserve.inference.errors import InvalidRequest, RequestTooLarge, quoted
from tabserve.inference.tensors import DATATYPES, Tensor, TensorSpec
from tabserve.schema.columns import Columns, rows
from tabserve.schema.numbers import NumberRecords, are_all
from tabserve.schema.records import Records


class Taken(NamedTuple):
    """The predictor's inputs, and the ids of the records that they are made from; None if no record has one."""

    tensors: tuple[Tensor, ...]
    ids: Array | None = None


class Inputs:
    """Makes the predictor's inputs from one bundle's records.

    preprocess: the bundle's preprocessor, None if it has none. max_rows: more records are a RequestTooLarge.
    Anything else that does not fit is an InvalidRequest naming record and field.
    """

    def __init__(self, bundle: Bundle, preprocess: Preprocess | None, max_rows: int) -> None:
        self._schema = bundle.schema
        self._model = bundle.manifest.model
        self._features = RecordFeatures(bundle, preprocess)
        self._max_rows = max_rows
        self._records = Records(bundle.schema)
        self._dtype = DATATYPES[self._model.datatype]
        self._fields = frozenset(spec.name for spec in self._records.tensor_specs)
        self._numbers = self._number_records() if preprocess is None else None
        self._plain = (frozenset({MATRIX}), frozenset(spec.name for spec in self._model.features))
        width = max(len(self._fields), len(self._model.features))
        self.bounds = Bounds(max_rows, width=width, inputs=2 * width)  # one that comes twice is named

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The V2 inputs that carry records, one per field."""
        return self._records.tensor_specs

    def from_tensors(self, tensors: Sequence[Tensor]) -> Taken:
        """The predictor's inputs, made from columns of records; tensors that already are its inputs stay unchanged."""
        names = frozenset(tensor.name for tensor in tensors)
        if names in self._plain and not names <= self._fields:
            self._check_plain(tensors)
            return Taken(tuple(tensors))
        if MATRIX in names and MATRIX not in self._fields:
            other = next(tensor.name for tensor in tensors if tensor.name != MATRIX)
            raise InvalidRequest(f"inputs: expected `{MATRIX}` alone, got {quoted(other)} as well")
        return self._from_columns(self._records.from_tensors(tensors))

    def from_body(self, body: bytes) -> Taken:
        """The predictor's inputs, made from a V1 body of records."""
        if self._numbers is not None:
            made = self._numbers.decode(body)
            self._check_count(len(made))
            return Taken((Tensor(MATRIX, self._model.datatype, made),))
        return self._from_columns(self._records.decode(body))

    def _number_records(self) -> NumberRecords | None:
        """A reader for records that are the model's matrix as they are; None if they are not."""
        schema = self._schema
        if schema.id is not None:
            return None
        same = [spec.name for spec in self._model.features] == list(schema.features) == list(schema.fields)
        return NumberRecords(schema, self._records, self._dtype) if same and are_all(schema, self._dtype) else None

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
        features = self._features(columns)
        if isinstance(features, dict):
            tensors = _one_each(features)
        else:
            tensors = (Tensor(MATRIX, self._model.datatype, features),)
        return Taken(tensors, columns[self._schema.id] if self._schema.id else None)


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
