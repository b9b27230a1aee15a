"""Turn records, as JSON objects or as V2 columns, into checked columns."""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.inference.bounds import LARGE_BYTES
from tabserve.inference.errors import InvalidRequest
from tabserve.inference.pieces import decoded
from tabserve.inference.tensors import Tensor, TensorSpec
from tabserve.schema import inputs
from tabserve.schema.columns import (
    INSTANTS,
    Checks,
    Columns,
    Misfit,
    Sifted,
    UnfitError,
    expectation,
    identities,
    identity_misfits,
    rows,
    where,
    word,
)
from tabserve.schema.inputs import quoted
from tabserve.schema.mending import MALFORMED, Mender
from tabserve.schema.misfits import nearest
from tabserve.schema.schema import Field, Schema
from tabserve.schema.timestamps import instants

_JSON_TYPES: dict[str, Any] = {
    "number": float,
    "integer": float,
    "boolean": bool,
    "category": str,
    "text": str,
    "timestamp": float | str,
    "date": str,
}
_OF_ID = str | int | None
_GOT = {
    "str": "a string",
    "bool": "a boolean",
    "int": "a number",
    "float": "a number",
    "array": "an array",
    "object": "an object",
}
_Given: TypeAlias = Callable[[str, int], Any]
_AT = re.compile(r"(?P<message>.*?)(?: - at `\$(?:\.instances)?(?:\[(?P<record>\d+)\](?:\.(?P<field>.*))?)?`)?", re.S)
_MOST_TEXT = 1000
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.S)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.S)
_EXPECTED = re.compile(r"Expected `.*`, got `(.*)`")


class _Parts(NamedTuple):
    """The parts of records: numeric fields [fields, records], words, and ids, before any check.

    given: what the client sent for a field of a record. faults: of values that could not be read, and are missing.
    """

    numbers: Array
    words: dict[str, list[str | None]]
    ids: Array | None
    given: _Given
    faults: list[Misfit]


class Records:
    """Reads records of one schema.

    clock: gives "now" in seconds since 1970.
    Every method raises only InvalidRequest. `sift` and `sift_tensors` raise it for what is no request of records, the
    others also for the first record and field that do not fit.
    """

    tensor_specs: tuple[TensorSpec, ...]
    """The V2 inputs that carry records as columns, one per field."""

    def __init__(self, schema: Schema, clock: Callable[[], float] = time.time) -> None:
        self._fields, self._id = schema.fields, schema.id
        self._checks = Checks(schema, clock)
        self._places = {name: at for at, name in enumerate(self._fields)}
        self._pack = struct.Struct(f"{len(self._checks.numeric)}d").pack
        self._readers = [instants if field.type in INSTANTS else _floats for field in self._checks.numeric]
        width = len(self._fields) + (self._id is not None)
        self._pick = _picker([self._places[field.name] for field in self._checks.numeric], width)
        record = record_struct(self._fields, _value_type, self._id)
        of_id = {self._id: _OF_ID} if self._id else {}
        self._mender = Mender(
            self._fields, {name: _json_type(field) for name, field in self._fields.items()} | of_id, record
        )
        self._records = list[record]  # type: ignore[valid-type]
        self._decoder = Decoder(self._records, width)
        self.tensor_specs = (
            *([TensorSpec(self._id, "BYTES", (-1,))] if self._id else []),
            *(TensorSpec(name, inputs.DATATYPES[field.type], (-1,)) for name, field in self._fields.items()),
        )

    def decode(self, body: bytes | memoryview) -> Columns:
        """The columns of a V1 body, `{"instances": [{…}, …]}`."""
        try:
            instances: list[Any] = self._decoder.decode(body).instances
        except msgspec.ValidationError as error:
            raise InvalidRequest(_explained(error, self._fields, self._id)) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"expected a JSON object with `instances`: {error}") from error
        except RecursionError as error:
            raise InvalidRequest("the body is nested too deeply") from error
        return self._checked(self._parts(list(map(msgspec.structs.astuple, instances))))

    def sift(self, body: bytes | memoryview) -> Sifted:
        """The records of a V1 body that fit, and all faults of the others."""
        try:
            mended = self._mender.read(body)
        except MALFORMED:
            columns = self.decode(body)  # raises the error of a body that is none of records
            return Sifted(columns, np.arange(rows(columns)), [])
        return self._sifted(self._parts(mended.values, mended.faults))

    def sift_each(self, texts: Sequence[bytes]) -> Sifted:
        """The records that are each a JSON text and fit, and all faults of the others.

        Keys that are no field's are passed over, unless an optional field is missing and one has nearly its name.
        """
        mended = self._mender.read_each(texts)
        return self._sifted(self._parts(mended.values, mended.faults))

    def convert(self, instances: Any) -> Columns:
        """The columns of already decoded records, a list of dicts."""
        try:
            converted = msgspec.convert(instances, self._records)
            return self._checked(self._parts(list(map(msgspec.structs.astuple, converted))))
        except msgspec.ValidationError as error:
            raise InvalidRequest(_explained(error, self._fields, self._id)) from error
        except UnicodeEncodeError as error:  # a lone surrogate in a key
            raise InvalidRequest("expected records with UTF-8 keys") from error
        except RecursionError as error:
            raise InvalidRequest("the records are nested too deeply") from error

    def from_tensors(self, tensors: Sequence[Tensor]) -> Columns:
        """The columns of V2 inputs, one per field, each of shape [n] or [n, 1].

        A missing value is NaN, or an empty string unless that is a category; an optional input may be left out.
        """
        return self._checked(self._parts_of(tensors))

    def sift_tensors(self, tensors: Sequence[Tensor]) -> Sifted:
        """The records of V2 inputs, as for `from_tensors`, that fit, and all faults of the others."""
        return self._sifted(self._parts_of(tensors))

    def _parts_of(self, tensors: Sequence[Tensor]) -> _Parts:
        given = {tensor.name: tensor for tensor in tensors}
        inputs.check_names(tensors, given, self._fields, self._id)
        count = tensors[0].array.shape[0] if tensors[0].array.ndim else 0
        faults: list[Misfit] = []
        ids: list[str | int | None] = [None] * count
        if self._id in given:
            ids = inputs.ids(given.pop(self._id), count, faults)
        flat = {name: inputs.flat(tensor, self._fields[name], count) for name, tensor in given.items()}
        numbers = np.full((len(self._checks.numeric), count), np.nan)
        for index, field in enumerate(self._checks.numeric):
            if field.name in flat:
                numbers[index] = inputs.numbers(flat[field.name], field, faults)
        nothing: list[str | None] = [None] * count
        words = {
            field.name: inputs.strings(flat[field.name], field, faults) if field.name in flat else nothing
            for field in self._checks.words
        }
        named = identities(ids) if self._id else None
        return _Parts(numbers, words, named, lambda name, record: inputs.element(flat[name][record]), faults)

    def _parts(self, values: list[tuple[Any, ...]], faults: Sequence[Misfit] = ()) -> _Parts:
        words = {field.name: self._words(field, values) for field in self._checks.words}
        ids = identities([record[-1] for record in values]) if self._id else None
        return _Parts(self._numbers(values), words, ids, self._given(values), list(faults))

    def _words(self, field: Field, values: list[tuple[Any, ...]]) -> list[str | None]:
        place = self._places[field.name]
        words: list[Any] = [record[place] for record in values]
        return [None if given is None else word(given) for given in words] if field.numbered else words

    def _checked(self, parts: _Parts) -> Columns:
        """The columns of the records. Raises UnfitError for the first fault."""
        for fault in parts.faults:
            raise UnfitError(fault)
        columns = self._checks.columns(parts.numbers, parts.words, parts.given)
        if self._id is None or parts.ids is None:
            return columns
        for misfit in identity_misfits(self._id, parts.ids):
            raise UnfitError(misfit)
        return columns | {self._id: parts.ids}

    def _sifted(self, parts: _Parts) -> Sifted:
        if self._id is None or parts.ids is None:
            return self._checks.sift(parts.numbers, parts.words, parts.given, parts.faults)
        known = [*parts.faults, *identity_misfits(self._id, parts.ids)]
        sifted = self._checks.sift(parts.numbers, parts.words, parts.given, known)
        return sifted._replace(columns=sifted.columns | {self._id: parts.ids[sifted.places]})

    def _numbers(self, values: list[tuple[Any, ...]]) -> Array:
        """The numeric fields of the records' values, FP64 [fields, records]."""
        pick = self._pick
        try:  # much faster than numpy
            packed = bytearray().join([self._pack(*pick(record)) for record in values])
            return np.frombuffer(packed).reshape(len(values), len(self._checks.numeric)).T
        except struct.error:  # some are missing, or are times as text
            fields = zip(*map(pick, values), strict=True)
            return np.array([read(field) for read, field in zip(self._readers, fields, strict=True)])

    def _given(self, values: list[tuple[Any, ...]]) -> _Given:
        return lambda name, record: values[record][self._places[name]]


def _floats(values: Sequence[float | None]) -> Array:
    return np.array(values, np.float64)


def record_struct(
    fields: Mapping[str, Field], json_type: Callable[[Field], Any], identity: str | None = None
) -> type[msgspec.Struct]:
    """The struct that msgspec reads a record into: the fields in their order, and last the id, if records have one."""
    attributes = {name: f"f{index}" for index, name in enumerate(fields)}
    members = [
        (attributes[name], json_type(field), msgspec.NODEFAULT)
        if field.required
        else (attributes[name], json_type(field) | None, None)
        for name, field in fields.items()
    ]
    rename = {attribute: name for name, attribute in attributes.items()}
    if identity is not None:
        members.append(("id", _OF_ID, None))
        rename["id"] = identity
    return msgspec.defstruct("Record", members, rename=rename, gc=False, forbid_unknown_fields=True, kw_only=True)


def _value_type(field: Field) -> Any:
    return str | float if field.numbered else _JSON_TYPES[field.type]


def _json_type(field: Field) -> Any:
    kind = _value_type(field)
    return kind if field.required else kind | None


class Envelope(msgspec.Struct, gc=False):
    """A V1 body, with its instances decoded or as text."""

    instances: Any


class _Text(msgspec.Struct, gc=False):
    instances: msgspec.Raw


class Decoder:
    """Decodes V1 bodies of records, large ones in pieces. records: the type of a list of them."""

    def __init__(self, records: Any, width: int) -> None:
        self._width = width
        self._whole = msgspec.json.Decoder(msgspec.defstruct("Whole", [("instances", records)], gc=False)).decode
        self._some = msgspec.json.Decoder(records).decode
        self._text = msgspec.json.Decoder(_Text).decode

    def decode(self, body: bytes | memoryview) -> Any:
        """An object whose `instances` are the records. Raises msgspec's errors and RequestTooLarge."""
        if len(body) <= LARGE_BYTES:
            return self._whole(body)
        text = bytes(self._text(body).instances)
        if not text.startswith(b"["):
            return self._whole(body)
        return Envelope(list(chain.from_iterable(decoded(self._some, text, self._width))))


def _picker(places: list[int], count: int) -> Callable[[tuple[Any, ...]], Sequence[Any]]:
    """A function that picks the values at these places out of `count`."""
    if len(places) == count:
        return lambda values: values
    return itemgetter(*places) if len(places) > 1 else lambda values: [values[at] for at in places]


def _explained(error: msgspec.ValidationError, fields: Mapping[str, Field], identity: str | None) -> str:
    """What is wrong with the records of a body. identity: the name of their id."""
    text = str(error)
    if len(text) > _MOST_TEXT:  # it names a key of the request
        text = text[: _MOST_TEXT // 2] + text[-_MOST_TEXT // 2 :]
    match = _AT.fullmatch(text)
    message, record, name = match.group("message", "record", "field") if match else (text, None, None)
    if record is None:
        return f'expected {{"instances": [{{…}}, …]}}: {message[0].lower()}{message[1:]}'
    if unknown := _UNKNOWN.fullmatch(message):
        return f"record {record}: unknown field {quoted(unknown[1])}{nearest(unknown[1], fields)}"
    if missing := _MISSING.fullmatch(message):
        place = where(int(record), missing[1])
        return f"{place}: expected {expectation(fields[missing[1]])}, but it is missing"
    got = _EXPECTED.fullmatch(message)
    kind = _GOT.get(got[1], got[1]) if got else "a number out of range"
    if name is None:
        return f"record {record}: expected an object with the fields {', '.join(fields)}, got {kind}"
    expected = "a string or a whole number" if name == identity else expectation(fields[name])
    return f"{where(int(record), name)}: expected {expected}, got {kind}"
