"""V1 instances become tensors, the same ones whether the body is decoded at once or, being large, in pieces."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tabserve.bundle.instances import decode_tensors
from tabserve.inference.bounds import LARGE_BYTES, Bounds
from tabserve.inference.errors import InvalidRequest, RequestTooLarge

BOUNDS = Bounds(rows=20_000, width=3, inputs=6)
ROWS = [[at, None if at % 7 == 0 else at / 3, -at] for at in range(20_000)]
NAMED = [{"a": at / 3, "b": "x" if at % 7 else None, "c": None} for at in range(10_000)]


def body(instances: Any, *, large: bool) -> bytes:
    """A body that is large where it shall be, if only by white space."""
    return json.dumps({"instances": instances}).encode() + b" " * (LARGE_BYTES * large)


@pytest.mark.parametrize("instances", [ROWS, NAMED, ROWS[:1], []], ids=["rows", "named", "one", "none"])
def test_a_large_body_has_the_same_tensors_as_its_parts(instances: list[Any]) -> None:
    whole = decode_tensors(body(instances, large=True), BOUNDS)
    parts = [decode_tensors(body(instances[at : at + 1000], large=False), BOUNDS) for at in range(0, 20_000, 1000)]

    for tensor, same in zip(whole, zip(*filter(None, parts), strict=True), strict=True):
        assert {(tensor.name, tensor.datatype)} == {(part.name, part.datatype) for part in same}
        np.testing.assert_array_equal(tensor.array, np.concatenate([part.array for part in same]))


@pytest.mark.parametrize(
    ("instances", "message"),
    [
        ([*ROWS[:10_000], [1, "a", 2]], r"`\$\[10000\]"),
        ([*ROWS[:10_000], [1, 2]], "instance 10000: expected 3 values"),
        ([*NAMED, {"a": 1}], "instance 10000: expected an object with"),
        ({}, "`instances` to be an array"),
    ],
    ids=["text", "short", "missing", "object"],
)
def test_what_is_wrong_in_a_large_body_is_named_with_its_place(instances: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        decode_tensors(body(instances, large=True), BOUNDS)


@pytest.mark.parametrize("large", [False, True])
def test_more_rows_than_there_may_be_are_refused(large: bool) -> None:
    with pytest.raises(RequestTooLarge, match="at most 3 rows, got 4"):
        decode_tensors(body([[1]] * 4, large=large), Bounds(rows=3, width=1, inputs=2))


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("instances", [[{}], [{}, {}], [{}, {"a": 1}]], ids=["one", "two", "first"])
def test_instances_of_nothing_are_not_taken_for_none(instances: list[Any], large: bool) -> None:
    with pytest.raises(InvalidRequest, match="instance 0: expected an object with the model's features"):
        decode_tensors(body(instances, large=large), BOUNDS)
