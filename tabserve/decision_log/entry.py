"""What one answered request hands to the decision log: arrays, which become a table later, in the log's own thread."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from tabserve.arrays import Array

ONLINE, SHADOW = "online", "shadow"
"""The sources of what a service was asked, and of the copies whose answers nobody waits for."""
_STRUCT_BYTES, _ARRAY_BYTES = 1024, 160
"""What an entry and each of its arrays take besides their values."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """The decisions on the records of one request.

    ids: of the records, `str`; None if they are `request_id/row`. places: the records' positions in the request, or the
    file; None if they are all of its records. time: seconds since 1970.
    rows: how many records the engine was given together. source: `online`, `shadow`, the URI of a file, or
    stream:TOPIC. origins: where each record was in its source; None if that is its place.
    columns: the record's fields, after defaults, hashed where they are hashed, and without what is dropped.
    outputs: the model's, [rows, …] by name. answers: `decision`, `score`, `label` [rows], `predict` [rows, targets],
    and `reasons` and `codes` [rows, top], padded with "".
    """

    request_id: str
    time: float
    rows: int
    engine: str
    versions: str
    release: str
    digest: str
    columns: Mapping[str, Array]
    outputs: Mapping[str, Array]
    answers: Mapping[str, Array]
    source: str = ONLINE
    ids: Array | None = None
    places: Array | None = None
    origins: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(next(iter((self.outputs or self.answers or self.columns).values())))

    @property
    def nbytes(self) -> int:
        """About how much memory it takes; the texts of answers are few, and shared by all entries."""
        given = [*self.columns.values(), *([] if self.ids is None else [self.ids])]
        arrays = [*given, *self.outputs.values(), *self.answers.values()]
        texts = [text for array in given if array.dtype.hasobject for text in array.tolist()]
        places = 0 if self.places is None else self.places.nbytes
        values = sum([array.nbytes for array in arrays]) + places
        values += sum(map(sys.getsizeof, texts)) + sum(map(sys.getsizeof, self.origins or ()))
        return _STRUCT_BYTES + _ARRAY_BYTES * len(arrays) + values


class Log(Protocol):
    """What takes entries."""

    def put(self, entry: Entry) -> None:
        """Take the decisions of one request; never waits, and never fails."""


def ids(entry: Entry) -> list[str]:
    """The ids of an entry's records: their own, or the request's with their positions."""
    if entry.ids is not None:
        own: list[str] = entry.ids.tolist()
        return own
    places = range(len(entry)) if entry.places is None else entry.places.tolist()
    return [f"{entry.request_id}/{at}" for at in places]
