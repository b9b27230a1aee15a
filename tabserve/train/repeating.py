"""Verify that a model always gives a record the same answer, whatever the other records in its batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tabserve.arrays import Array, dense
from tabserve.bundle.errors import BundleError
from tabserve.engines import parity
from tabserve.train.presentation import FAILURES, TOLERANCE, Ask, first_line, quietly

_ALONE = 8
_TOGETHER = 64


def verify(model: Any, ask: Ask, table: Any) -> None:
    """Refuse a model whose answers change, or depend on the other rows in a batch. Raises BundleError.

    Services answer records one by one and in batches, as requests come.
    """
    table = table[:_TOGETHER]
    whole = quietly(ask, table)
    if _gap(quietly(ask, table), whole) > TOLERANCE:
        problem = "answers the same records differently when asked again"
        raise BundleError("model", problem, "Give a model that predicts without randomness.")
    found = _alone(ask, table, whole)
    if found is not None:
        remedy = "Replace what looks at several rows at once: services also answer records one by one."
        raise BundleError("model", f"{found}{_step(model, table)}", remedy)


def _alone(ask: Ask, table: Any, whole: dict[str, Array]) -> str | None:
    """What is wrong with the answers to single rows, None if nothing is."""
    for at in range(min(len(table), _ALONE)):
        try:
            gap = _gap(quietly(ask, table[at : at + 1]), {name: values[at : at + 1] for name, values in whole.items()})
        except FAILURES as error:
            return f"fails on a single record: {first_line(error)}"
        if gap > TOLERANCE:
            return f"answers a record differently when it is alone, by up to {gap:.3g}"
    return None


def _step(model: Any, table: Any) -> str:
    """The first step of a pipeline that looks at several rows, as text for the error; "" if none is found."""
    for at, (name, _) in enumerate(getattr(model, "steps", ())[:-1]):
        transform: Callable[[Any], Any] = model[: at + 1].transform
        ask = partial(_transformed, transform)
        if _alone(ask, table, quietly(ask, table)) is not None:
            return f" (its step `{name}`)"
    return ""


def _transformed(transform: Callable[[Any], Any], table: Any) -> dict[str, Array]:
    return {"": dense(transform(table))}


def _gap(answers: dict[str, Array], expected: dict[str, Array]) -> float:
    return max(parity.differences(answers, expected).values(), default=np.inf)
