"""A large JSON array that is decoded in pieces is what it is when decoded at once."""

from __future__ import annotations

import json
from itertools import chain
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabserve.inference.bounds import LARGE_BYTES
from tabserve.inference.errors import RequestTooLarge
from tabserve.inference.pieces import PIECE_BYTES, decoded, pieces

TEXTS = st.text(st.sampled_from('a,[{}]\\"\n'), max_size=12)
VALUES = st.recursive(
    TEXTS | st.integers(0, 9) | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=20,
)


@given(st.lists(VALUES, max_size=8), st.integers(1, 9), st.sampled_from([None, 1]))
def test_the_pieces_are_the_whole(elements: list[Any], piece_bytes: int, indent: int | None) -> None:
    text = json.dumps(elements, indent=indent).encode()
    found = [json.loads(piece) for piece in pieces(text, width=100, piece_bytes=piece_bytes)]

    assert list(chain.from_iterable(found)) == elements


def test_pieces_are_short() -> None:
    text = json.dumps([[1.5] * 50] * 10_000).encode()

    assert max(len(piece) for piece in pieces(text, width=50)) < 2 * PIECE_BYTES
    assert sum(1 for _ in pieces(text, width=50)) > len(text) / PIECE_BYTES / 2


@pytest.mark.parametrize("text", [b"[[" + b"1," * 400_000 + b"1]]", b"[1,[" + b"1," * 400_000 + b"1],1]"])
def test_an_element_of_too_many_values_is_refused_before_it_is_decoded(text: bytes) -> None:
    with pytest.raises(RequestTooLarge, match="at most 10 values"):
        list(pieces(text, width=10))


def test_a_long_text_is_one_element() -> None:
    long = "a,[" * LARGE_BYTES

    assert list(decoded(msgspec.json.Decoder(list[str]).decode, json.dumps(["a", long]).encode(), 1)) == [["a"], [long]]


def test_an_error_names_the_place_in_the_whole_array() -> None:
    text = json.dumps([1] * 100_000 + ["a"] + [1] * 100_000).encode()

    with pytest.raises(msgspec.ValidationError, match=r"`\$\[100000\]`"):
        list(decoded(msgspec.json.Decoder(list[int]).decode, text, 1))
