"""Check, before decoding, how much a request for a model can hold, so that one that cannot fit is refused cheaply."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.inference.errors import InvalidRequest, RequestTooLarge

LARGE_BYTES = 256 * 2**10
"""The size up to which any body is decoded within milliseconds."""
SLACK = 4096
"""What a request may hold besides its values: names, parameters, outputs."""
_PER_INPUT = 64
_QUOTE, _BACKSLASH = 0x22, 0x5C


class Bounds(msgspec.Struct, frozen=True):
    """The most that a request for one model can hold.

    rows: rows in a request. width: values in a row. inputs: tensors in a V2 request.
    Every method raises RequestTooLarge beyond these, or InvalidRequest if no request could hold so much.
    """

    rows: int
    width: int
    inputs: int

    @property
    def values(self) -> int:
        """The most values in a whole request."""
        return self.rows * self.width

    def check_infer(self, body: bytes | memoryview) -> None:
        """Check the JSON of a V2 request, which is worth it if this is large."""
        if holds_more(body, b"{", 4 * self.inputs + SLACK):
            raise self._too_many_inputs("more")
        if holds_more(body, b",", self.values + _PER_INPUT * self.inputs + SLACK):
            raise self._too_many_values()

    def check_predict(self, body: bytes) -> None:
        """Check a V1 request, whose rows are arrays or objects."""
        if holds_more(body, b"{[", self.rows + SLACK):
            raise RequestTooLarge(f"expected at most {self.rows} rows, got more")
        if holds_more(body, b",", self.values + self.rows + SLACK):
            raise self._too_many_values()

    def check_inputs(self, count: int) -> None:
        """Check the number of a V2 request's inputs."""
        if count > self.inputs:
            raise self._too_many_inputs(str(count))

    def check_shape(self, shape: Sequence[int]) -> None:
        """Check the shape of a tensor, whose first dimension is rows."""
        if shape and (shape[0] > self.rows or prod(shape) > self.rows * self.width):
            self.check_rows(shape[0])
            raise self._too_many_values()

    def check_rows(self, count: int) -> None:
        """Of the number of rows."""
        if count > self.rows:
            raise RequestTooLarge(f"expected at most {self.rows} rows, got {count}")

    def check_values(self, count: int) -> None:
        """Check the number of a tensor's elements."""
        if count > self.values:
            raise self._too_many_values()

    def _too_many_values(self) -> RequestTooLarge:
        return RequestTooLarge(f"expected at most {self.rows} rows of at most {self.width} values, got more")

    def _too_many_inputs(self, got: str) -> InvalidRequest:
        return InvalidRequest(f"inputs: expected at most {self.inputs}, got {got}")


UNBOUNDED = Bounds(rows=2**31, width=2**256, inputs=2**31)


def holds_more(json: bytes | memoryview, marks: bytes, most: int, piece_bytes: int = 256 * 2**10) -> bool:
    """Whether a JSON text has more than `most` of these characters outside its strings.

    This costs far less than decoding as many values. piece_bytes: how much is looked at in one step.
    """
    characters = np.frombuffer(json, np.uint8)
    if sum(np.count_nonzero(characters == mark) for mark in marks) <= most:
        return False
    found, strings = 0, Strings()
    for at in range(0, len(characters), piece_bytes):
        piece = characters[at : at + piece_bytes]
        marked = np.isin(piece, list(marks)) if len(marks) > 1 else piece == marks[0]
        found += int(np.count_nonzero(marked & ~strings.mask(piece)))
        if found > most:
            return True
    return False


class Strings:
    """Tells which characters of a JSON text are inside its strings, piece by piece."""

    def __init__(self) -> None:
        self._inside, self._slashes = False, 0

    def mask(self, piece: Array) -> Array:
        """Whether each character of the next piece, which is not empty, is inside a string."""
        flips = piece == _QUOTE
        self._slashes = _drop_escaped(piece, flips, self._slashes)
        mask: Array = np.logical_xor.accumulate(flips) ^ self._inside
        self._inside = bool(mask[-1])
        return mask


def _drop_escaped(piece: Array, quotes: Array, slashes: int) -> int:
    """Remove quotes that backslashes escape, which have an odd number of these before them.

    slashes: how many are right before the piece. Returns how many are at its end.
    """
    others = np.flatnonzero(piece != _BACKSLASH)
    if len(others) < len(piece) or slashes:
        places = np.flatnonzero(quotes)
        before = np.concatenate(([-1 - slashes], others))[np.searchsorted(others, places)]
        quotes[places[(places - before) % 2 == 0]] = False
    return len(piece) - 1 - int(others[-1]) if len(others) else slashes + len(piece)
