"""Decode a large JSON array in pieces, between which other threads run: a decoder holds Python's lock throughout."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np

from tabserve.inference.bounds import LARGE_BYTES, SLACK, Strings, holds_more
from tabserve.inference.errors import RequestTooLarge

PIECE_BYTES = 64 * 2**10

_COMMA, _OPEN, _CLOSE, _LOWER = 0x2C, 0x7B, 0x7D, 0x20
"""A comma, braces, and the bit in which brackets differ from braces."""
_INDEX = re.compile(r"(- at `\$)\[(\d+)\]")


def decoded(decode: Callable[[bytes], list[Any]], array: bytes, width: int) -> Iterator[list[Any]]:
    """The elements of a valid JSON array, decoded piece by piece.

    width: the most values in an element. Raises RequestTooLarge for an element of far more, and msgspec's errors, which
    give the place in the whole array.
    """
    count = 0
    for piece in pieces(array, width):
        try:
            elements = decode(piece)
        except msgspec.ValidationError as error:
            raise msgspec.ValidationError(_moved(str(error), count)) from None
        count += len(elements)
        yield elements


def _moved(text: str, count: int) -> str:
    """An error's text, whose place in a piece is made one in the whole array."""
    return _INDEX.sub(lambda found: f"{found[1]}[{int(found[2]) + count}]", text)


def pieces(array: bytes, width: int, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
    """Arrays of a valid JSON array's elements, as text, each of about `piece_bytes` or one element. Raises as above."""
    view = memoryview(array)
    characters = np.frombuffer(view, np.uint8)
    start = 1 + int(np.argmax(characters == ord("[")))
    strings, depth = Strings(), 0
    for at in range(0, len(characters), piece_bytes):
        piece = characters[at : at + piece_bytes]
        outside = ~strings.mask(piece)
        brackets = piece | _LOWER
        opened, closed = (brackets == _OPEN) & outside, (brackets == _CLOSE) & outside
        depths = depth + np.cumsum(opened.view(np.int8) - closed.view(np.int8), dtype=np.int32)
        cuts = np.flatnonzero(outside & (piece == _COMMA) & (depths == 1))
        if len(cuts):
            end = at + int(cuts[-1])
            yield b"".join((b"[", _checked(view[start:end], width, piece_bytes), b"]"))
            start = end + 1
        depth = int(depths[-1])
    yield b"".join((b"[", _checked(view[start:], width, piece_bytes)))


def _checked(elements: memoryview, width: int, piece_bytes: int) -> memoryview:
    """The elements of a piece. If they are large, they are one of any size, and others in less than two pieces."""
    if len(elements) > LARGE_BYTES and holds_more(elements, b",", width + 2 * piece_bytes + SLACK):
        raise RequestTooLarge(f"expected at most {width} values in a row, got more")
    return elements
