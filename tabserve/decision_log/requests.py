"""Collect the records of requests whose answers depend on each other, until each request is whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

MOST_WAITING = 1 << 18
"""How many records may wait for the others of their requests."""

_Key: TypeAlias = tuple[object, ...]
_Records: TypeAlias = dict[int, tuple[pa.RecordBatch, int]]
"""Records by their places in the request: each in a batch, and at which position."""


class Together(NamedTuple):
    """Whole requests: their records, and the span of each request in them."""

    batch: pa.RecordBatch
    spans: list[slice]

    def part(self, spans: list[slice]) -> Together:
        """Only the requests at these spans."""
        places = np.concatenate([np.arange(span.start, span.stop) for span in spans])
        return Together(self.batch.take(pa.array(places)), _spans([span.stop - span.start for span in spans]))


class Requests:
    """Puts records together that were decided together, in any order, and from any file.

    Records of one request have the same request id, time, source, engine and number of records.
    most: how many records may wait.
    """

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._most = most
        self._waiting: dict[_Key, list[_Records]] = {}
        self._count = 0

    def add(self, batch: pa.RecordBatch) -> Together | None:
        """The requests that these records complete, None if they complete none."""
        whole: list[_Records] = []
        left: dict[int, tuple[_Records, int]] = {}
        places = batch.column("row").to_pylist()
        for at, (key, place) in enumerate(zip(_keys(batch), places, strict=True)):
            records = self._request(key, place)
            records[place] = batch, at
            left[at] = records, place
            if len(records) == key[-1]:
                whole.append(records)
                self._remove(key, records)
        self._count += batch.num_rows - sum(map(len, whole))
        made, done = _joined(whole) if whole else None, set(map(id, whole))
        _keep_only([(at, *each) for at, each in left.items() if id(each[0]) not in done], batch)
        return made

    def given_up(self, *, every: bool = False) -> Iterator[pa.RecordBatch]:
        """The records of requests that have waited the longest, where too many wait; or of every request."""
        while self._waiting and (every or self._count > self._most):
            key = next(iter(self._waiting))
            records = self._waiting[key][0]
            self._remove(key, records)
            self._count -= len(records)
            yield _joined([records]).batch

    def _request(self, key: _Key, place: int) -> _Records:
        """The request that waits for the record at this place; a new one if there is none."""
        waiting = self._waiting.setdefault(key, [])
        found = next((records for records in waiting if place not in records), None)
        if found is None:
            found = {}
            waiting.append(found)
        return found

    def _remove(self, key: _Key, records: _Records) -> None:
        self._waiting[key] = [each for each in self._waiting[key] if each is not records]
        if not self._waiting[key]:
            del self._waiting[key]


def _keys(batch: pa.RecordBatch) -> Iterator[_Key]:
    sources = [source.rsplit("#", 1)[0] for source in batch.column("source").to_pylist()]
    request, time, engine, rows = (batch.column(name).to_pylist() for name in ("request_id", "time", "engine", "rows"))
    return zip(request, time, sources, engine, rows, strict=True)


def _keep_only(left: list[tuple[int, _Records, int]], batch: pa.RecordBatch) -> None:
    """Copy the records that still wait, so that they do not keep their batch in memory."""
    if left:
        kept = batch.take(pa.array([at for at, _, _ in left]))
        for position, (_, records, place) in enumerate(left):
            records[place] = kept, position


def _joined(requests: list[_Records]) -> Together:
    """The records of requests, each in the order of their places."""
    found = [records[place] for records in requests for place in sorted(records)]
    batches = list({id(batch): batch for batch, _ in found}.values())
    starts = np.cumsum([0, *(batch.num_rows for batch in batches)]).tolist()
    first = {id(batch): start for batch, start in zip(batches, starts, strict=False)}
    places = [first[id(batch)] + at for batch, at in found]
    return Together(pa.concat_batches(batches).take(pa.array(places)), _spans([len(records) for records in requests]))


def _spans(lengths: list[int]) -> list[slice]:
    ends = np.cumsum(lengths).tolist()
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
