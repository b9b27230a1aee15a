"""Read what a slot answered to a copy of a request: what was decided for each row, and with which score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tabserve.arrays import Array
from tabserve.client.rest import Outputs, arrays

DECIDING = ("decision", "label", "predict")
"""The names of what a row was decided to be, the first that there is."""


class Rows(NamedTuple):
    """The rows of one answer.

    places: their positions in the request, in rising order. decided: their decisions [rows] by name, as texts; none for
    a regression. scores: [rows], None if there are none.
    """

    places: Array
    decided: dict[str, Array]
    scores: Array | None


class _Predictions(msgspec.Struct):
    predictions: list[Any]


def predictions(body: bytes) -> Rows | None:
    """The rows of an answer of V1; None if it is no such answer."""
    try:
        given = msgspec.json.decode(body, type=_Predictions).predictions
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    places = [place for place, one in enumerate(given) if one is not None]
    rows = [given[place] for place in places]
    if all(isinstance(row, dict) for row in rows):
        names = set(rows[0]).intersection(*rows[1:]) if rows else set()
        columns = {name: _column([row[name] for row in rows]) for name in (*DECIDING, "score") if name in names}
    else:
        columns = {"predict": _column(rows)}
    return _rows(np.array(places, np.int64), columns)


def outputs(body: bytes, json_size: str | None) -> Rows | None:
    """The rows of an answer of V2; None if it is no such answer. json_size: Inference-Header-Content-Length."""
    try:
        size = len(body) if json_size is None else int(json_size)
        found = arrays(msgspec.json.decode(body[:size], type=Outputs), body[size:])
    except (msgspec.MsgspecError, UnicodeDecodeError, LookupError, TypeError, ValueError):
        return None
    known = {name: array for name, array in found.items() if name in (*DECIDING, "score", "predict_proba")}
    counts = {array.shape[:1] for array in known.values()}
    if len(counts) != 1 or () in counts:
        return None
    ((count,),) = counts
    places = found.get("row", np.arange(count))
    return _rows(places, known) if places.shape == (count,) else None


def _rows(places: Array, columns: Mapping[str, Array]) -> Rows:
    decided = {name: _texts(columns[name]) for name in DECIDING if name in columns and _decides(columns[name])}
    return Rows(places, decided, _scores(columns))


def _column(values: Sequence[Any]) -> Array:
    """Values of JSON: numbers if all are, otherwise objects."""
    numbers = values and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return np.array(values) if numbers else _objects(values)


def _objects(values: Sequence[Any]) -> Array:
    made = np.empty(len(values), object)
    made[:] = values
    return made


def _decides(column: Array) -> bool:
    """Whether a column says what rows were decided to be, and is no number of a regression."""
    nested = column.dtype.kind == "O" and any(isinstance(value, dict | list) for value in column)
    return column.ndim == 1 and column.dtype.kind != "f" and not nested


def _texts(column: Array) -> Array:
    return _objects([value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in column])


def _scores(columns: Mapping[str, Array]) -> Array | None:
    """The scores; those of a predictor are the last class's probability, or a regression's numbers."""
    for name, dimensions in (("score", 1), ("predict_proba", 2), ("predict", 1)):
        column = columns.get(name)
        if column is not None and column.dtype.kind == "f" and column.ndim == dimensions and column.size:
            return np.asarray(column if dimensions == 1 else column[:, -1], np.float64)
    return None
