"""Run `tabserve request` with its options."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import IO, Any

import click

from tabserve.client import Client, ServiceError
from tabserve.progress import LINE_SECONDS, Progress
from tabserve.request import reading
from tabserve.request.reading import ENDINGS, FileError, Source
from tabserve.request.run import Counts, OnError, Options, RefusedError, names, run
from tabserve.request.writing import FORMATS, sink
from tabserve.schema.schema import ANSWERED

REFUSED = (ServiceError, FileError, RefusedError)
"""The errors that a user can fix."""
REJECTED = 3
"""The exit status of a run that answered all rows but those in the file of rejects."""
_STANDARD = "-"


def request(
    url: str,
    *,
    record: str | None,
    file: str | None,
    keep: str,
    output: str | None,
    to: str | None,
    on_error: OnError,
    rejects: str,
    batch: int,
    in_flight: int,
    model: str | None,
    kind: str | None,
    delimiter: str | None,
    encoding: str,
    decimal: str,
    host: str | None,
    ca: str | None,
    header: Sequence[str],
    timeout: float,
) -> int:
    """Ask, and write the answers; returns the exit status. Raises click.UsageError, or one of REFUSED."""
    if (record is None) == (file is None):
        raise click.UsageError("expected either --record or --file")
    options = Options(_kept(keep), on_error, batch, in_flight)
    written = _format(output, to)
    with Client(url, host, ca=ca, timeout=timeout, headers=_headers(header)) as client:
        chosen = model or client.model_name()
        if record is not None:
            with _stream(to) as stream, closing(sink(written, stream, (), ())) as one:
                one.write(client.decide(chosen, [_object(record)]))
            return 0
        how = reading.Options(kind, _delimiter(delimiter), _encoding(encoding), decimal)
        counts = _file(client, chosen, str(file), how, (written, to, rejects), options)
    if counts.rejected:
        click.echo(f"{counts.decided:,} answered, {counts.rejected:,} rejected: {rejects}", err=True)
    return REJECTED if counts.rejected else 0


def _file(
    client: Client, model: str, file: str, how: reading.Options, out: tuple[str, str | None, str], options: Options
) -> Counts:
    """Ask about a file. out: the format of answers, their file, and that of rejects."""
    written, to, rejects = out
    with ExitStack() as stack:
        name, given, size = _standard() if file == _STANDARD else reading.open_file(file)
        stack.callback(given.close)
        datatypes = {spec.name: spec.datatype for spec in client.metadata(model).inputs}
        source = Source(name, given, size, datatypes, how)
        told = stack.enter_context(_created(rejects)) if options.on_error == "record" else None
        stream = stack.enter_context(_stream(to))
        columns = names(source, client.answered(model), options)
        target = stack.enter_context(closing(sink(written, stream, columns, client.targets(model))))
        progress = stack.enter_context(Progress("records"))
        counts = run(client, model, source, target, told, options, progress)
        if progress.seconds > LINE_SECONDS:
            click.echo(f"{progress.count:,} records, {progress.rate:,.0f} per second", err=True)
    return counts


def _standard() -> tuple[str, IO[bytes], int | None]:
    stream = sys.stdin.buffer
    return "standard input", getattr(stream, "raw", stream), None


@contextmanager
def _stream(to: str | None) -> Iterator[IO[bytes]]:
    """The file for answers, or standard output. Raises FileError."""
    if to is None:
        yield sys.stdout.buffer
        return
    try:
        made = Path(to).open("wb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise FileError(f"--to {to}: {error.strerror}") from None
    with made:
        yield made


@contextmanager
def _created(path: str) -> Iterator[IO[str]]:
    try:
        made = Path(path).open("w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 - closed below
    except OSError as error:
        raise FileError(f"--rejects {path}: {error.strerror}") from None
    with made:
        yield made


def _format(output: str | None, to: str | None) -> str:
    """The format of answers: the one that is named, or the one that the file's ending means, or a table."""
    endings = {ending: kind for kind, known in ENDINGS.items() for ending in known}
    chosen = output or (endings.get(Path(to).suffix.lower()) if to else "table")
    if chosen is None:
        raise click.UsageError(f"--to {to}: expected a file that ends in {', '.join(endings)}, or --output")
    if chosen == "parquet" and to is None and sys.stdout.isatty():
        raise click.UsageError("--output parquet: expected --to FILE, not a terminal")
    return "jsonl" if chosen == "json" else chosen


def _kept(keep: str) -> tuple[str, ...]:
    kept = tuple(name.strip() for name in keep.split(",") if name.strip())
    for name in kept:
        if name in {*ANSWERED, "line"}:
            raise click.UsageError(f"--keep {name}: the output has a column of that name")
    return kept


def _delimiter(given: str | None) -> str | None:
    chosen = "\t" if given in ("tab", "\\t") else given
    if chosen is not None and len(chosen) != 1:
        raise click.UsageError(f"--delimiter: expected one character, or tab, got {given!r}")
    return chosen


def _encoding(given: str) -> str:
    try:
        return codecs.lookup(given).name
    except LookupError:
        raise click.UsageError(f"--encoding: expected a name such as cp1252, got {given!r}") from None


def _headers(given: Sequence[str]) -> Mapping[str, str]:
    pairs = [header.partition(":") for header in given]
    for header, (name, colon, _) in zip(given, pairs, strict=True):
        if not colon or not name.strip():
            raise click.UsageError(f"--header: expected NAME: VALUE, got {header!r}")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise click.UsageError(f"--record: expected a JSON object: {error}") from None
    if not isinstance(value, dict):
        raise click.UsageError("--record: expected a JSON object")
    return value


__all__ = ["FORMATS", "REFUSED", "request"]
