"""A blocking client of a transformer: records in, decisions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, overload

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.client import columns
from tabserve.client.address import parse
from tabserve.client.errors import ServiceError
from tabserve.client.rest import Rest
from tabserve.client.wire import Options, Wire
from tabserve.inference.model import ON_ERROR
from tabserve.inference.tensors import ModelMetadata, Tensor, TensorSpec
from tabserve.schema import answers

if TYPE_CHECKING:
    import pandas as pd

TIMEOUT_SECONDS = 30.0
_SIFT = {ON_ERROR: "record"}
_ROW, _ERRORS = "row", "errors"
_D = TypeVar("_D")


class Sifted(NamedTuple, Generic[_D]):
    """Decisions on the good records of a batch, and the faults of the others.

    decisions: of a list of records a list, with None for a bad one. Of a DataFrame one with the index of the good rows.
    Of other columns, their columns and `row`, the positions of the good rows.
    errors: one for each fault, with `row` (from 0), `field`, `expected` and `got`.
    """

    decisions: _D
    errors: list[dict[str, Any]]


class _Found(NamedTuple):
    """Outputs of the records that fit, their positions, and the faults of the others."""

    arrays: dict[str, Array]
    places: Array
    errors: list[dict[str, Any]]


class Client:
    """Asks one transformer; may be used by several threads.

    Records are dicts, a DataFrame, or a mapping of names to arrays (one value per record), and decisions come in the
    same form. Columns are typed by the model's metadata, are never guessed, and may be more than the model's.
    """

    def __init__(
        self,
        url: str,
        host: str | None = None,
        *,
        ca: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Make a client, which connects when it first asks.

        url: http, https, grpc or grpcs, host and port; http if no scheme is given. host: the Host header, behind a
        gateway. ca: a file of certificates to trust, instead of the system's. timeout: seconds for an answer.
        headers: sent with every request. Raises ServiceError if the URL is none.
        """
        address = parse(url)
        options = Options(host, ca, timeout, headers or {})
        if address.scheme.startswith("grpc"):
            from tabserve.client.grpc import Grpc  # takes as long as all the rest

            self._wire: Wire = Grpc(address, options)
        else:
            self._wire = Rest(address, options)
        self._metadata: dict[str, ModelMetadata] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def model_name(self) -> str:
        """The name of the model that the transformer serves. Raises ServiceError, over gRPC always."""
        return self._wire.model_name()

    def ready(self) -> bool:
        """Whether the transformer answers that it is ready."""
        return self._wire.ready()

    def get(self, path: str) -> dict[str, Any]:
        """The JSON answer to a GET of a path. Raises ServiceError."""
        if not isinstance(self._wire, Rest):
            raise ServiceError(f"GET {path}: only over REST")
        return self._wire.get(path)

    def metadata(self, model: str) -> ModelMetadata:
        """The model's metadata, asked for once. Raises ServiceError."""
        if model not in self._metadata:
            self._metadata[model] = self._wire.metadata(model)
        return self._metadata[model]

    @overload
    def decide(self, model: str, records: pd.DataFrame) -> pd.DataFrame: ...

    @overload
    def decide(self, model: str, records: Mapping[str, Any]) -> dict[str, Array]: ...

    @overload
    def decide(self, model: str, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]: ...

    def decide(self, model: str, records: Any) -> Any:
        """The decision on each record.

        Raises ServiceError, naming the first record that does not fit, and ValueError for a column of another kind.
        """
        if _are_columns(records):
            found = self._infer(model, columns.of_arrays(records, self.metadata(model).inputs), {})
            return _like(records, found.arrays, slice(None))
        answer = self._wire.predict(model, records, {})
        if answer is not None:
            return answer["predictions"]
        given = columns.of_records(records, self.metadata(model).inputs)
        for fault in given.faults:
            raise ServiceError(str(fault))
        return self._objects(model, self._infer(model, given.tensors, {}).arrays) if records else []

    @overload
    def sift(self, model: str, records: pd.DataFrame) -> Sifted[pd.DataFrame]: ...

    @overload
    def sift(self, model: str, records: Mapping[str, Any]) -> Sifted[dict[str, Array]]: ...

    @overload
    def sift(self, model: str, records: Sequence[Mapping[str, Any]]) -> Sifted[list[dict[str, Any] | None]]: ...

    def sift(self, model: str, records: Any) -> Sifted[Any]:
        """The decisions on the good records, and all faults of the bad ones. Raises ServiceError and ValueError."""
        if _are_columns(records):
            found = self._infer(model, columns.of_arrays(records, self.metadata(model).inputs), _SIFT)
            return Sifted(_like(records, found.arrays, found.places), found.errors)
        answer = self._wire.predict(model, records, _SIFT)
        if answer is not None:
            return Sifted(answer["predictions"], answer.get("errors", []))
        return self._sift_columns(model, records)

    def _sift_columns(self, model: str, records: Sequence[Mapping[str, Any]]) -> Sifted[list[dict[str, Any] | None]]:
        """Sift records over a protocol without V1: those whose values have other types are not sent."""
        given = columns.of_records(records, self.metadata(model).inputs)
        decisions: list[dict[str, Any] | None] = [None] * len(records)
        errors = answers.errors(given.faults)
        if len(given.places):
            found = self._infer(model, given.tensors, _SIFT)
            for at, one in zip(given.places[found.places].tolist(), self._objects(model, found.arrays), strict=True):
                decisions[at] = one
            errors += [{**error, "row": int(given.places[error["row"]])} for error in found.errors]
        return Sifted(decisions, sorted(errors, key=lambda error: int(error["row"])))

    def _infer(self, model: str, tensors: Sequence[Tensor], headers: Mapping[str, str]) -> _Found:
        """The outputs that make a decision, BYTES as text."""
        arrays = self._wire.infer(model, tensors, self.answered(model), headers)
        places, errors = arrays.pop(_ROW, np.arange(len(tensors[0].array))), arrays.pop(_ERRORS, np.empty(0, object))
        texts = {name: _texts(array) if array.dtype == object else array for name, array in arrays.items()}
        return _Found(texts, places, [msgspec.json.decode(error) for error in errors.tolist()])

    def answered(self, model: str) -> list[str]:
        """The names in a decision, in their order, the id's first. Raises ServiceError."""
        metadata = self.metadata(model)
        optional = msgspec.json.decode(metadata.properties.get("optional_outputs", "[]"), type=list[TensorSpec])
        offered = {spec.name for spec in (*metadata.outputs, *optional)}
        ids = [spec.name for spec in metadata.inputs if spec.name in offered]
        return [*ids, *answers.names(offered - {"predict"}, offered & {"label"}, self.targets(model))]

    def targets(self, model: str) -> list[str]:
        """The names of the values in `predict`, if a regression has several. Raises ServiceError."""
        return msgspec.json.decode(self.metadata(model).properties.get("targets", "[]"), type=list[str])

    def _objects(self, model: str, arrays: Mapping[str, Array]) -> list[dict[str, Any]]:
        return answers.objects(arrays, self.targets(model))


def _are_columns(records: Any) -> bool:
    return hasattr(records, "columns") or isinstance(records, Mapping)


def _texts(array: Array) -> Array:
    texts = [value.decode() for value in array.ravel().tolist()]
    return np.array(texts, object).reshape(array.shape)


def _like(records: Any, arrays: dict[str, Array], places: Any) -> Any:
    """The decisions in the form of the records. places: the positions of the rows that they are of."""
    if not hasattr(records, "columns"):
        return arrays if isinstance(places, slice) else {_ROW: places, **arrays}
    import pandas as pd  # the caller has it

    made = {name: list(array) if array.ndim > 1 else array for name, array in arrays.items()}
    if "reasons" in made:
        made["reasons"] = [[text for text in texts if text] for texts in arrays["reasons"].tolist()]
    return pd.DataFrame(made, index=records.index[places])
