"""Find out why a model or preprocessor fails on rows that the schema permits: which column, which value, what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tabserve.arrays import Array, Features, rows, take
from tabserve.bundle.errors import BundleError
from tabserve.bundle.manifest import FeatureSpec
from tabserve.engines.contributions.rows import replaced
from tabserve.train.presentation import FAILURES, first_line

_TRIED = 32
_NARROW = "Train it on such records, or narrow the schema to what it accepts."

Run = Callable[[Any], Any]
"""A call that asks for the answers to rows. Raises whatever the library raises."""


def refusal(what: str, error: Exception, run: Run, features: Features, specs: Sequence[FeatureSpec]) -> BundleError:
    """The error for a `model` or `preprocessor` that failed on these rows.

    The column is the cause if the row is answered with another value in it. specs: the columns, in order.
    """
    at = _failing(run, features)
    if at is None:
        return BundleError(what, f"fails on records the schema permits: {first_line(error)}", _NARROW)
    for index, spec in enumerate(specs):
        column = features[:, index] if isinstance(features, np.ndarray) else features[spec.name]
        if _is_cause(run, take(features, slice(at, at + 1)), spec, index, column[:_TRIED]):
            return _of_column(what, error, spec, column[at])
    return BundleError(what, f"fails on records the schema permits: {first_line(error)}", _NARROW)


def answered(run: Run, features: Features) -> Features:
    """The rows that get an answer."""
    failing = _all_failing(run, features, 0, rows(features))
    return take(features, np.setdiff1d(np.arange(rows(features)), failing))


def _of_column(what: str, error: Exception, spec: FeatureSpec, value: Any) -> BundleError:
    problem = first_line(error)
    if value is None or value != value:
        remedy = f"Train it on records without `{spec.name}`, make the field required, or give it a default."
        return BundleError(what, f"fails where `{spec.name}` is missing: {problem}", remedy)
    if spec.type == "text":
        return BundleError(what, f"fails for some texts of `{spec.name}`: {problem}", _NARROW)
    if spec.type == "category":
        text = value if isinstance(value, str) else spec.values[int(value)]
        remedy = (
            f"Take it out of the `values` of `{spec.name}`, train on records that have it, or let the encoder accept "
            "unknown values (handle_unknown='ignore')."
        )
        return BundleError(what, f"fails where `{spec.name}` is {text}: {problem}", remedy)
    remedy = f"Give `{spec.name}` the `min` and `max` that the model was trained for, or train it on such records."
    return BundleError(what, f"fails where `{spec.name}` is {value}: {problem}", remedy)


def _fails(run: Run, features: Features) -> bool:
    try:
        run(features)
    except FAILURES:
        return True
    return False


def _failing(run: Run, features: Features) -> int | None:
    """The position of a row that fails by itself, None if there is none."""
    start, end = 0, rows(features)
    while end - start > 1:
        middle = (start + end) // 2
        if _fails(run, take(features, slice(start, middle))):
            end = middle
        else:
            start = middle
    return start if _fails(run, take(features, slice(start, end))) else None


def _all_failing(run: Run, features: Features, start: int, end: int) -> list[int]:
    if not _fails(run, take(features, slice(start, end))):
        return []
    if end - start == 1:
        return [start]
    middle = (start + end) // 2
    return [*_all_failing(run, features, start, middle), *_all_failing(run, features, middle, end)]


def _is_cause(run: Run, row: Features, spec: FeatureSpec, index: int, others: Array) -> bool:
    """Whether the row is answered with another row's value in this column."""
    values = (others[at : at + 1] for at in range(len(others)))
    return any(not _fails(run, replaced(row, spec.name, index, value)) for value in values)
