"""How much a request for a model can hold, looked at before it is decoded: what cannot fit is refused for little."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.inference.errors import InvalidRequest, RequestTooLarge

LARGE_BYTES = 256 * 2**10
"""Bodies up to here are decoded within milliseconds, whatever is in them."""
SLACK = 4096
"""What a request may have beside its values: names, parameters, outputs."""
_PER_INPUT = 64
_QUOTE, _BACKSLASH = 0x22, 0x5C


class Bounds(msgspec.Struct, frozen=True):
    """What a request for one model can hold at most.

    rows: of a request. width: values in a row. inputs: tensors of a V2 request.
    Every method raises RequestTooLarge, or InvalidRequest where no request has so many, for what goes beyond.
    """

    rows: int
    width: int
    inputs: int

    @property
    def values(self) -> int:
        """Of a whole request."""
        return self.rows * self.width

    def check_infer(self, body: bytes | memoryview) -> None:
        """Of the JSON of a V2 request."""
        if len(body) <= LARGE_BYTES:
            return
        if holds_more(body, b"{", 4 * self.inputs + SLACK):
            raise self._too_many_inputs("more")
        if holds_more(body, b",", self.values + _PER_INPUT * self.inputs + SLACK):
            raise self._too_many_values()

    def check_predict(self, body: bytes) -> None:
        """Of a V1 request, whose rows are arrays or objects."""
        if len(body) <= LARGE_BYTES:
            return
        if holds_more(body, b"{[", self.rows + SLACK):
            raise RequestTooLarge(f"expected at most {self.rows} rows, got more")
        if holds_more(body, b",", self.values + self.rows + SLACK):
            raise self._too_many_values()

    def check_inputs(self, count: int) -> None:
        """Of the number of a V2 request's inputs."""
        if count > self.inputs:
            raise self._too_many_inputs(str(count))

    def check_shape(self, shape: Sequence[int]) -> None:
        """Of a tensor, of which the first dimension is rows."""
        if shape:
            self.check_rows(shape[0])
            self.check_values(prod(shape))

    def check_rows(self, count: int) -> None:
        """Of the number of rows."""
        if count > self.rows:
            raise RequestTooLarge(f"expected at most {self.rows} rows, got {count}")

    def check_values(self, count: int) -> None:
        """Of the number of a tensor's elements."""
        if count > self.values:
            raise self._too_many_values()

    def _too_many_values(self) -> RequestTooLarge:
        return RequestTooLarge(f"expected at most {self.rows} rows of at most {self.width} values, got more")

    def _too_many_inputs(self, got: str) -> InvalidRequest:
        return InvalidRequest(f"inputs: expected at most {self.inputs}, got {got}")


UNBOUNDED = Bounds(rows=2**31, width=2**256, inputs=2**31)


def holds_more(json: bytes | memoryview, marks: bytes, most: int, piece_bytes: int = 256 * 2**10) -> bool:
    """Whether more than `most` of these characters are in a JSON text, outside of its strings.

    A hundredth of what it costs to decode as many values. piece_bytes: so much is looked at in one step.
    """
    characters = np.frombuffer(json, np.uint8)
    if sum(np.count_nonzero(characters == mark) for mark in marks) <= most:
        return False
    found, inside, slashes = 0, False, 0
    for at in range(0, len(characters), piece_bytes):
        piece = characters[at : at + piece_bytes]
        marked = np.isin(piece, list(marks)) if len(marks) > 1 else piece == marks[0]
        flips = piece == _QUOTE
        slashes = _drop_escaped(piece, flips, slashes)
        strings = np.logical_xor.accumulate(flips)
        found += int(np.count_nonzero(marked & (strings == inside)))
        if found > most:
            return True
        inside ^= bool(strings[-1])
    return False


def _drop_escaped(piece: Array, quotes: Array, slashes: int) -> int:
    """Take the quotes out that backslashes escape: an odd number stands before them.

    slashes: so many stand before the piece; returned is how many are at its end.
    """
    others = np.flatnonzero(piece != _BACKSLASH)
    if len(others) < len(piece) or slashes:
        places = np.flatnonzero(quotes)
        before = np.concatenate(([-1 - slashes], others))[np.searchsorted(others, places)]
        quotes[places[(places - before) % 2 == 0]] = False
    return len(piece) - 1 - int(others[-1]) if len(others) else slashes + len(piece)
