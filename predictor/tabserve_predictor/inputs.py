"""Turn V2 tensors into the features that a model takes: one matrix, or one column per feature."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from tabserve.arrays import Array, Features
from tabserve.bundle.manifest import FeatureSpec, ModelInfo
from tabserve.bundle.model_input import ModelInput
from tabserve.bundle.tensors import MATRIX, numeric
from tabserve.inference.bounds import Bounds
from tabserve.inference.errors import InvalidRequest, RequestTooLarge, quoted
from tabserve.inference.tensors import DATATYPES, Tensor, text

WHOLE_LIMIT = 2**53
"""The largest whole number up to which all are exact in FP64."""
_FP64 = DATATYPES["FP64"]


class Inputs:
    """Reads the inputs of one model's requests.

    may_miss: the features that may have no value. max_rows: more rows are a RequestTooLarge.
    Anything else that does not fit is an InvalidRequest.
    """

    def __init__(self, model: ModelInfo, may_miss: Collection[str], max_rows: int) -> None:
        self._model = model
        self._accepted = ModelInput(model, may_miss)
        self._may_miss = may_miss
        self._max_rows = max_rows
        self._dtype = DATATYPES[model.datatype]
        self._specs = {spec.name: spec for spec in model.features}
        self._known = {spec.name: _known(spec) for spec in model.features if spec.type == "category"}
        self._numeric = numeric(model)
        width = len(model.features)
        self.bounds = Bounds(max_rows, width=width, inputs=2 * width)  # one that comes twice is named

    def features(self, inputs: Sequence[Tensor]) -> Features:
        """The features in the form that the model's engines take."""
        if len(inputs) == 1 and inputs[0].name == MATRIX:
            return self._accepted.of_matrix(self._matrix(inputs[0]), MATRIX)
        return self._accepted.of_columns(self._columns(inputs))

    def _matrix(self, tensor: Tensor) -> Array:
        expected = len(self._specs)
        array = tensor.array
        if self._model.input == "columns" and not self._numeric:
            raise InvalidRequest(
                f"input `{MATRIX}`: expected one input per feature, since some features are not numbers"
            )
        if array.ndim != 2 or array.shape[1] != expected:
            raise InvalidRequest(f"input `{MATRIX}`: expected shape [-1, {expected}], got {list(array.shape)}")
        if array.dtype.kind not in "fiu":
            raise InvalidRequest(f"input `{MATRIX}`: expected numbers ({self._model.datatype}), got {tensor.datatype}")
        self._check_rows(len(array))
        return _typed(MATRIX, array, self._dtype)

    def _columns(self, inputs: Sequence[Tensor]) -> dict[str, Array]:
        self._check_names([tensor.name for tensor in inputs])
        given = {tensor.name: tensor for tensor in inputs}
        columns = {name: self._column(given[name], spec) for name, spec in self._specs.items()}
        lengths = {len(column) for column in columns.values()}
        if len(lengths) > 1:
            raise InvalidRequest(f"inputs: expected the same number of rows in each, got {sorted(lengths)}")
        self._check_rows(lengths.pop())
        return columns

    def _check_names(self, names: Sequence[str]) -> None:
        if MATRIX in names:
            other = next((name for name in names if name != MATRIX), MATRIX)
            raise InvalidRequest(f"inputs: expected `{MATRIX}` alone, got {quoted(other)} as well")
        unknown = [name for name in names if name not in self._specs]
        missing = [name for name in self._specs if name not in names]
        if unknown or missing or len(names) > len(self._specs):
            expected = f"`{MATRIX}` or one per feature ({', '.join(self._specs)})" if self._numeric else (
                f"one per feature ({', '.join(self._specs)})"
            )  # fmt: skip
            problem = (
                f"got {quoted(unknown[0])}" if unknown else f"`{missing[0]}` is missing" if missing else "got one twice"
            )
            raise InvalidRequest(f"inputs: expected {expected}; {problem}")

    def _column(self, tensor: Tensor, spec: FeatureSpec) -> Array:
        array = tensor.array
        if array.ndim == 2 and array.shape[1] == 1:
            array = array.reshape(-1)
        if array.ndim != 1:
            raise InvalidRequest(f"input `{spec.name}`: expected shape [-1] or [-1, 1], got {list(array.shape)}")
        if spec.type == "category":
            return self._categories(tensor, array, spec)
        if spec.type == "text":
            return _texts(tensor, array, spec)
        if array.dtype.kind not in "fiub":
            raise InvalidRequest(f"input `{spec.name}`: expected numbers (FP64), got {tensor.datatype}")
        return _typed(spec.name, array, _FP64)

    def _categories(self, tensor: Tensor, array: Array, spec: FeatureSpec) -> Array:
        """The categories as text; an empty one is a missing value, because BYTES has no null."""
        if tensor.datatype != "BYTES":
            raise InvalidRequest(f"input `{spec.name}`: expected BYTES, got {tensor.datatype}")
        known, values = self._known[spec.name], array.tolist()
        try:
            texts = [known[value] for value in values]
        except KeyError:
            row, value = next((row, value) for row, value in enumerate(values) if value not in known)
            got = f"got {quoted(value.decode(errors='replace'))} at [{row}]"
            raise InvalidRequest(f"input `{spec.name}`: expected one of {_listed(spec.values)}, {got}") from None
        if None in texts and spec.name not in self._may_miss:
            raise self._accepted.missing(spec.name, texts.index(None))
        return np.array(texts, object)

    def _check_rows(self, rows: int) -> None:
        if rows > self._max_rows:
            raise RequestTooLarge(f"expected at most {self._max_rows} rows, got {rows}")


def _texts(tensor: Tensor, array: Array, spec: FeatureSpec) -> Array:
    if tensor.datatype != "BYTES":
        raise InvalidRequest(f"input `{spec.name}`: expected BYTES, got {tensor.datatype}")
    texts: list[str] = []
    for row, value in enumerate(array.tolist()):
        try:
            texts.append(text(value))
        except UnicodeDecodeError:
            raise InvalidRequest(f"input `{spec.name}`: expected UTF-8, got other bytes at [{row}]") from None
        if len(texts[-1]) > spec.max_length:
            expected = f"text of at most {spec.max_length} characters"
            raise InvalidRequest(
                f"input `{spec.name}`: expected {expected}, got {len(texts[-1])} characters at [{row}]"
            )
    return np.array(texts, object)


def _typed(name: str, array: Array, dtype: np.dtype[np.float64]) -> Array:
    """The array in the model's floating point type; NaN is a missing value.

    Numbers too large for the type become infinite. Whole numbers that FP64 does not hold exactly are refused.
    """
    if array.dtype.kind in "iu" and ((array > WHOLE_LIMIT) | (array < -WHOLE_LIMIT)).any():
        raise InvalidRequest(f"input `{name}`: expected whole numbers up to 2^53, got a larger one")
    if array.dtype != dtype:
        with np.errstate(over="ignore"):
            return array.astype(dtype)
    return array


def _known(spec: FeatureSpec) -> dict[bytes, str | None]:
    """The categories by the bytes that a request may hold."""
    return {b"": None} | {value.encode(): value for value in spec.values}


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values[:20]) + (f" … ({len(values)} in all)" if len(values) > 20 else "")
