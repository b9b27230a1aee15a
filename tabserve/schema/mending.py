"""Read records of a V1 body one by one, so that every fault of a bad one is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from tabserve.schema.columns import HIDDEN, Misfit, expectation, shown
from tabserve.schema.misfits import nearest
from tabserve.schema.schema import Field

MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for JSON that is not of the expected type."""
_KINDS = {b"[": "an array", b"{": "an object"}
_LONGEST = 100
"""How many bytes of a wrong number may be told."""
_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


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
        mended = Mended([], [])
        for at, raw in enumerate(self._envelope(body).instances):
            try:
                mended.values.append(msgspec.structs.astuple(self._record(raw)))
            except MALFORMED:
                mended.values.append(self._mend(at, raw, mended.faults))
        return mended

    def _mend(self, at: int, raw: msgspec.Raw, faults: list[Misfit]) -> tuple[Any, ...]:
        """The values of a record; its faults are added to `faults`."""
        try:
            given = _keys(raw)
        except MALFORMED:
            faults.append(Misfit(at, "", f"an object with the fields {', '.join(self._keys)}", _got(raw)))
            return (None,) * len(self._keys)
        faults += [
            Misfit(at, shown(name)[1:-1], "no field of this name", f"one{nearest(name, self._keys)}")
            for name in given
            if name not in self._keys
        ]
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


def _got(raw: msgspec.Raw) -> str:
    """A wrong value as JSON, shortened, or its kind."""
    text = bytes(raw).strip()
    if text[:1] in _KINDS:
        return _KINDS[text[:1]]
    try:
        return shown(msgspec.json.decode(text, type=str)) if text[:1] == b'"' else text[:_LONGEST].decode()
    except MALFORMED:
        return "text that is not UTF-8"
