"""Ask about the records of a file, several requests at a time, and write answers in the file's order."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import chain, islice
from typing import IO, Any, Literal, NamedTuple, TypeAlias

from tabserve.client import Client, ServiceError
from tabserve.progress import Progress
from tabserve.request.reading import FileError, Row, Source, told
from tabserve.request.writing import Sink
from tabserve.schema import answers

OnError: TypeAlias = Literal["fail", "record"]
_MOST_TRIES = 10
_LONGEST_PAUSE_SECONDS = 10.0


class RefusedError(Exception):
    """A row has no decision; the message names it and all its faults."""


class Options(NamedTuple):
    """Options of a run. keep: names to carry along. batch: rows in a request. in_flight: requests at a time."""

    keep: Sequence[str] = ()
    on_error: OnError = "fail"
    batch: int = 500
    in_flight: int = 16


class Answered(NamedTuple):
    """The rows of one request, the decision on each or None, and the faults of each row that has none."""

    rows: Sequence[Row]
    decisions: Sequence[Mapping[str, Any] | None]
    faults: dict[int, list[dict[str, Any]]]


class Counts(NamedTuple):
    """How many rows were decided, and how many were not."""

    decided: int
    rejected: int


def run(
    client: Client,
    model: str,
    source: Source,
    sink: Sink,
    rejects: IO[str] | None,
    options: Options,
    progress: Progress,
) -> Counts:
    """Write the decision on every row of the source.

    rejects: gets rows without a decision, in JSON lines. Raises RefusedError, FileError and ServiceError.
    """
    decided = rejected = 0
    with closing(_answered(client, model, source, options)) as answered:
        for one in answered:
            if one.faults and options.on_error == "fail":
                raise RefusedError(_first(source, one))
            sink.write([_output(row, made, options) for row, made in zip(one.rows, one.decisions, strict=True) if made])
            if rejects is not None:
                rejects.write("".join(_rejected(row, one.faults) for row in one.rows if row.number in one.faults))
            decided, rejected = decided + len(one.rows) - len(one.faults), rejected + len(one.faults)
            progress.report(len(one.rows), source.share())
    return Counts(decided, rejected)


def _answered(client: Client, model: str, source: Source, options: Options) -> Generator[Answered, None, None]:
    """The answers to the rows' requests, in order."""
    waiting: deque[Future[Answered]] = deque()
    threads = ThreadPoolExecutor(options.in_flight, "asking")
    with closing(_wanted(source, options.keep)) as wanted:
        try:
            while rows := list(islice(wanted, options.batch)):
                waiting.append(threads.submit(_ask, client, model, source.name, rows))
                if len(waiting) >= 2 * options.in_flight:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)


def _wanted(source: Source, keep: Sequence[str]) -> Generator[Row, None, None]:
    """The rows. Raises FileError if the file has no column of a name to keep."""
    with closing(source.rows()) as rows:
        first = list(islice(rows, 1))
        for name in keep:
            if source.names is not None and name not in source.names:
                raise FileError(f"{source.name}: no column `{name}` to keep")
        yield from chain(first, rows)


def _ask(client: Client, model: str, name: str, rows: Sequence[Row]) -> Answered:
    """The decisions on rows. Raises ServiceError naming them."""
    sent = [row for row in rows if row.fault is None]
    decisions: dict[int, Mapping[str, Any] | None] = {}
    faults = {row.number: answers.errors([row.fault]) for row in rows if row.fault is not None}
    if sent:
        try:
            found, errors = _patiently(client, model, [row.record for row in sent])
        except ServiceError as error:
            raise ServiceError(f"{name}, rows {sent[0].number} to {sent[-1].number}: {error}") from None
        decisions = {row.number: made for row, made in zip(sent, found, strict=True)}
        for fault in errors:
            faults.setdefault(sent[fault["row"]].number, []).append(fault)
    return Answered(rows, [decisions.get(row.number) for row in rows], faults)


def _patiently(
    client: Client, model: str, records: Sequence[Mapping[str, Any]]
) -> tuple[Sequence[Mapping[str, Any] | None], list[dict[str, Any]]]:
    """The decisions and errors; a service that is overloaded or drains is asked again. Raises ServiceError."""
    for tries in range(_MOST_TRIES):
        try:
            return client.sift(model, records)
        except ServiceError as error:
            if error.retry_after is None or tries == _MOST_TRIES - 1:
                raise
            time.sleep(min(error.retry_after, _LONGEST_PAUSE_SECONDS))
    raise AssertionError


def _output(row: Row, decision: Mapping[str, Any], options: Options) -> dict[str, Any]:
    place = {"row": row.number} if row.line is None else {"line": row.line}
    kept = {name: row.given.get(name) for name in options.keep}
    return {**(place if options.on_error == "record" else {}), **kept, **decision}


def names(source: Source, answered: Sequence[str], options: Options) -> list[str]:
    """The names of an output, as `_output` makes it."""
    place = ["row" if source.format == "parquet" else "line"] if options.on_error == "record" else []
    return list(dict.fromkeys([*place, *options.keep, *answered]))


def _first(source: Source, one: Answered) -> str:
    """The faults of the first row that has some."""
    row = next(row for row in one.rows if row.number in one.faults)
    text, more = told(source.name, row, one.faults[row.number]), len(one.faults) - 1
    return f"{text}\n{more} more of the {len(one.rows)} rows from {one.rows[0].number} are bad" if more else text


def _rejected(row: Row, faults: Mapping[int, list[dict[str, Any]]]) -> str:
    """A line of the file of rejects: the place of a row, its faults, and what the file has there."""
    place = {"row": row.number, **({} if row.line is None else {"line": row.line})}
    told_of = [{name: fault[name] for name in ("field", "expected", "got")} for fault in faults[row.number]]
    return json.dumps({**place, "errors": told_of, "given": row.given}, ensure_ascii=False, default=str) + "\n"
