"""Keep what must not be in the decision log out of it: fields that are dropped, and the values of those hashed."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tabserve.arrays import Array
from tabserve.bundle import BundleError
from tabserve.schema.columns import Columns
from tabserve.schema.schema import Schema
from tabserve.schema.timestamps import date_of, moment

FEWEST_KEY_BYTES = 16
_REMEDY = f"Set it to a file with a secret of at least {FEWEST_KEY_BYTES} bytes."
_EXACT = 1e16


class Hiding:
    """Makes of a record's columns what the log may hold, in memory too.

    key_file: with the key of the hashes; "" if there is none. setting: what names the file, for errors.
    """

    def __init__(self, schema: Schema, key_file: str, setting: str) -> None:
        """Raises BundleError if the schema hashes a field and there is no key."""
        hashed = [field for field in schema.record if field.logged == "hash"]
        if hashed and not key_file:
            raise BundleError(setting, f"not set, and the schema hashes the field `{hashed[0].name}`", _REMEDY)
        self._key = _read(key_file, setting) if hashed else b""
        self._texts = {field.name: _TEXTS.get(field.type, str) for field in hashed}
        self._plain = [field.name for field in schema.record if field.logged == "keep"]
        self._hides = len(self._plain) < len(schema.record)

    def __call__(self, columns: Columns) -> Columns:
        """The columns that are kept and the hashes of others; nothing in them refers to a value that is hidden."""
        if not self._hides:
            return columns
        kept = {name: columns[name].copy() for name in self._plain}  # numbers lie in one matrix with hidden ones
        return kept | {name: self._hashed(columns[name], texts) for name, texts in self._texts.items()}

    def _hashed(self, column: Array, text: Callable[..., str]) -> Array:
        return np.array([None if _missing(value) else self._hash(text(value)) for value in column.tolist()], object)

    def _hash(self, text: str) -> str:
        return hmac.digest(self._key, text.encode(), "sha256").hex()


def _read(path: str, setting: str) -> bytes:
    """The key in a file, without the end of its line. Raises BundleError."""
    try:
        key = Path(path).read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise BundleError(setting, f"{path} cannot be read: {error.strerror}", _REMEDY) from error
    if len(key) < FEWEST_KEY_BYTES:
        raise BundleError(setting, f"{path} holds {len(key)} bytes", _REMEDY)
    return key


def _missing(value: str | float | None) -> bool:
    return value is None or value != value


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < _EXACT else repr(value)


def _time(seconds: float) -> str:
    return moment(seconds).isoformat(timespec="microseconds")


_TEXTS: dict[str, Callable[[float], str]] = {
    "number": _number,
    "integer": _number,
    "boolean": lambda value: "true" if value else "false",
    "timestamp": _time,
    "date": date_of,
}
"""How a value is written to be hashed; words are hashed as they are (docs/decisions.md)."""
