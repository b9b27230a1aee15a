"""Read records one by one, so that every fault of a bad one is told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import msgspec

from tabserve.schema.columns import HIDDEN, Misfit, expectation, shown
from tabserve.schema.misfits import MOST_NAME, misnamed, nearest
from tabserve.schema.schema import Field

MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for JSON that is not of the expected type."""
_KINDS = {b"[": "an array", b"{": "an object"}
_LONGEST = 100
"""How many bytes of a wrong number may be told."""
_MOST_COMPARED = 100
"""How many keys of a record are compared with the names of missing fields."""
_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_Judge: TypeAlias = Callable[[int, Collection[str]], Iterable[Misfit]]


class Mended(NamedTuple):
    """The values of records, None where there is a fault, and the faults."""

    values: list[tuple[Any, ...]]
    faults: list[Misfit]


class Key(NamedTuple):
    """A key of a record: what decodes its value, whether it must be there, and what is expected, in words.

    hidden: whether its value may not be told.
    """

    decode: Callable[[msgspec.Raw], Any]
    required: bool
    expected: str
    hidden: bool


class Mender:
    """Reads records of one schema.

    keys: the values' order, and their JSON types; the id's is last, if records have one.
    """

    def __init__(
        self, fields: Mapping[str, Field], json_types: Mapping[str, Any], record: type[msgspec.Struct]
    ) -> None:
        self._record = msgspec.json.Decoder(record).decode
        envelope = msgspec.defstruct("Envelope", [("instances", list[msgspec.Raw])], gc=False)
        self._envelope: Any = msgspec.json.Decoder(envelope).decode
        self._keys = {name: _key(fields.get(name), kind) for name, kind in json_types.items()}

    def read(self, body: bytes | memoryview) -> Mended:
        """The records of a V1 body. Raises msgspec's errors if it is no body of records at all."""
        return self._read(self._envelope(body).instances, self._unknown)

    def read_each(self, texts: Sequence[bytes]) -> Mended:
        """The records that are each a JSON text.

        Keys that are no field's are passed over, unless an optional field is missing and one has nearly its name.
        """
        return self._read(texts, self._misnamed)

    def _read(self, texts: Sequence[msgspec.Raw | bytes], judge: _Judge) -> Mended:
        """The records. judge: the faults of keys that are no field's."""
        mended = Mended([], [])
        for at, text in enumerate(texts):
            try:
                mended.values.append(msgspec.structs.astuple(self._record(text)))
            except MALFORMED:
                mended.values.append(self._mend(at, text, mended.faults, judge))
        return mended

    def _unknown(self, at: int, given: Collection[str]) -> Iterator[Misfit]:
        for name in given:
            if name not in self._keys:
                yield Misfit(at, shown(name)[1:-1], "no field of this name", f"one{nearest(name, self._keys)}")

    def _misnamed(self, at: int, given: Collection[str]) -> Iterator[Misfit]:
        unknown = (name for name in given if name not in self._keys and len(name) <= MOST_NAME)
        others = frozenset(islice(unknown, _MOST_COMPARED))
        if others and (found := misnamed(frozenset(self._keys.keys() - given), others)):
            yield Misfit(at, found[0], self._keys[found[0]].expected, f"`{found[1]}` instead")

    def _mend(self, at: int, raw: msgspec.Raw | bytes, faults: list[Misfit], judge: _Judge) -> tuple[Any, ...]:
        """The values of a record; its faults are added to `faults`."""
        try:
            given = _keys(raw)
        except MALFORMED as error:
            faults.append(Misfit(at, "", f"an object with the fields {', '.join(self._keys)}", _instead(raw, error)))
            return (None,) * len(self._keys)
        faults += judge(at, given)
        values = []
        for name, key in self._keys.items():
            try:
                values.append(key.decode(given[name]) if name in given else None)
            except MALFORMED:
                values.append(None)
                faults.append(Misfit(at, name, key.expected, HIDDEN if key.hidden else _got(given[name])))
            if key.required and name not in given:
                faults.append(Misfit(at, name, key.expected, "nothing"))
        return tuple(values)


def _key(field: Field | None, json_type: Any) -> Key:
    """The key of a field, or of the id."""
    decode = msgspec.json.Decoder(json_type).decode
    if field is None:
        return Key(decode, False, "a string or a whole number", False)
    return Key(decode, field.required, expectation(field), field.logged != "keep")


def _instead(raw: msgspec.Raw | bytes, error: Exception) -> str:
    """What there is instead of a record."""
    if isinstance(error, msgspec.DecodeError) and not isinstance(error, msgspec.ValidationError):
        return str(error) if bytes(raw).strip() else "nothing"
    return "text that is nested too deeply" if isinstance(error, RecursionError) else _got(raw)


def _got(raw: msgspec.Raw | bytes) -> str:
    """A wrong value as JSON, shortened, or its kind."""
    text = bytes(raw).strip()
    if text[:1] in _KINDS:
        return _KINDS[text[:1]]
    try:
        return shown(msgspec.json.decode(text, type=str)) if text[:1] == b'"' else text[:_LONGEST].decode()
    except MALFORMED:
        return "text that is not UTF-8"
