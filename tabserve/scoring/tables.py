"""Read tables in files in blocks, and write them whole: Parquet, CSV and JSON lines."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem

from tabserve.arrays import Array
from tabserve.inference.errors import InvalidRequest
from tabserve.schema.columns import Misfit, expectation, shown, told, word
from tabserve.schema.misfits import misnamed
from tabserve.schema.schema import Field, Schema
from tabserve.schema.timestamps import seconds

FORMATS = {"parquet": (".parquet",), "csv": (".csv",), "jsonl": (".jsonl", ".ndjson")}
"""Formats, and the endings of their files; compressed text also ends in .gz, .bz2 or .zst."""
_COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_BLOCK_ROWS = 1 << 16
_BLOCK_BYTES = 4 << 20
_MOST_HEADER_BYTES = 1 << 20
_ARROW = {"number": pa.float64(), "integer": pa.float64(), "boolean": pa.bool_(), "timestamp": pa.float64()}


class Block(NamedTuple):
    """Rows of a file: a record batch, the rows' positions in the file, and rows that are not records.

    done: the share of the file that is read after this block, 0 to 1.
    """

    batch: pa.RecordBatch
    places: Array
    unread: list[Misfit]
    done: float


def format_of(path: str) -> str | None:
    """The format that a file's ending means, None for any other ending."""
    for ending in _COMPRESSED:
        path = path.removesuffix(ending)
    return next((kind for kind, endings in FORMATS.items() if path.endswith(endings)), None)


def blocks(files: FileSystem, path: str, size: int, schema: Schema, wanted: Sequence[str]) -> Iterator[Block]:
    """The rows of a file, with those of the wanted columns that it has.

    Raises InvalidRequest for a file whose format is not the one that its ending means, and OSError.
    """
    read = {"parquet": _parquet, "csv": _csv, "jsonl": _jsonl}[str(format_of(path))]
    try:
        yield from read(files, path, size, schema, wanted)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise InvalidRequest(f"expected {format_of(path)}, {error}") from error


def _parquet(files: FileSystem, path: str, size: int, schema: Schema, wanted: Sequence[str]) -> Iterator[Block]:
    with files.open_input_file(path) as source, pq.ParquetFile(source, pre_buffer=False) as file:
        total, read = file.metadata.num_rows, 0
        known = [name for name in wanted if name in file.schema_arrow.names]
        for batch in file.iter_batches(_BLOCK_ROWS, columns=known):
            places = np.arange(read, read + batch.num_rows)
            read += batch.num_rows
            yield Block(batch, places, [], read / total)


def _csv(files: FileSystem, path: str, size: int, schema: Schema, wanted: Sequence[str]) -> Iterator[Block]:
    """Read every column as text, with an empty cell as null; a row with too many or too few cells is unread."""
    names = _header(files, path)
    unread: list[Misfit] = []

    def refuse(row: arrow_csv.InvalidRow) -> str:
        # Rows are numbered from 1, including the header.
        got = f"{row.actual_columns}"
        unread.append(Misfit(row.number - 2, "", f"{row.expected_columns} cells", got))
        return "skip"

    with files.open_input_file(path) as source:
        reader = arrow_csv.open_csv(
            _uncompressed(source, path),
            arrow_csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
            arrow_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=refuse),
            arrow_csv.ConvertOptions(
                include_columns=[name for name in wanted if name in names],
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
        read = 0
        for batch in reader:
            places = _places(read, batch.num_rows, [misfit.record for misfit in unread])
            read += batch.num_rows + len(unread)
            yield Block(batch, places, list(unread), min(1.0, source.tell() / size))
            unread.clear()
        if unread:
            yield Block(pa.RecordBatch.from_pylist([], reader.schema), np.arange(0), unread, 1.0)


def _places(start: int, count: int, skipped: Sequence[int]) -> Array:
    """The positions of `count` rows from `start`, without the skipped ones."""
    return np.delete(np.arange(start, start + count + len(skipped)), [at - start for at in skipped])


def _header(files: FileSystem, path: str) -> list[str]:
    with files.open_input_file(path) as source:
        text = _uncompressed(source, path).read(_MOST_HEADER_BYTES).decode("utf-8-sig", errors="replace")
    return next(csv.reader(io.StringIO(text)), [])


def _uncompressed(source: pa.NativeFile, path: str) -> pa.NativeFile:
    kind = next((kind for ending, kind in _COMPRESSED.items() if path.endswith(ending)), None)
    return pa.CompressedInputStream(source, kind) if kind else source


def _jsonl(files: FileSystem, path: str, size: int, schema: Schema, wanted: Sequence[str]) -> Iterator[Block]:
    lines = _Lines(schema, wanted)
    read = 0
    with files.open_input_file(path) as source:
        stream = _uncompressed(source, path)
        rest = b""
        while data := stream.read(_BLOCK_BYTES):
            whole, newline, rest = (rest + data).rpartition(b"\n")
            if newline:
                block = lines.block(whole.split(b"\n"), read, min(1.0, source.tell() / size))
                read += len(block.places) + len(block.unread)
                yield block
        if rest:
            yield lines.block([rest], read, 1.0)


class _Lines:
    """Reads lines of JSON objects, with fields typed by the schema and other wanted keys as text."""

    def __init__(self, schema: Schema, wanted: Sequence[str]) -> None:
        self._fields, self._wanted = schema.fields, wanted
        self._known = {*schema.fields, *wanted}
        self._schema = pa.schema([pa.field(name, self._kind(name)) for name in wanted])

    def _kind(self, name: str) -> pa.DataType:
        field = self._fields.get(name)
        return _ARROW.get(field.type, pa.string()) if field else pa.string()

    def block(self, lines: Sequence[bytes], start: int, done: float) -> Block:
        """The records in lines; blank lines are skipped."""
        columns: dict[str, list[Any]] = {name: [] for name in self._wanted}
        places, unread = [], []
        given = (line for line in lines if line.strip())
        for record, line in enumerate(given, start):
            try:
                values = [self._value(record, name, value) for name, value in self._object(record, line).items()]
            except _Unread as error:
                unread.append(error.misfit)
                continue
            places.append(record)
            for name, value in zip(self._wanted, values, strict=True):
                columns[name].append(value)
        arrays = [pa.array(columns[field.name], field.type) for field in self._schema]
        return Block(pa.RecordBatch.from_arrays(arrays, schema=self._schema), np.array(places, np.int64), unread, done)

    def _object(self, record: int, line: bytes) -> dict[str, Any]:
        try:
            value = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _Unread(Misfit(record, "", "a JSON object", str(error))) from None
        if not isinstance(value, dict):
            raise _Unread(Misfit(record, "", "a JSON object", shown(value)))
        others = value.keys() - self._known
        if others and (hint := misnamed(frozenset(self._known - value.keys()), frozenset(others))):
            raise _Unread(Misfit(record, hint[0], expectation(self._fields[hint[0]]), f"`{hint[1]}` instead"))
        return {name: value.get(name) for name in self._wanted}

    def _value(self, record: int, name: str, value: Any) -> Any:
        field = self._fields.get(name)
        if field is None:
            return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        made = _typed(field, value)
        if made is None and value is not None:
            raise _Unread(Misfit(record, name, expectation(field), told(field, value)))
        return made


class _Unread(Exception):
    """A line is not a record."""

    def __init__(self, misfit: Misfit) -> None:
        super().__init__(str(misfit))
        self.misfit = misfit


def _typed(field: Field, value: Any) -> Any:
    """A JSON value in the field's Arrow type, None if it is of another type."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if field.type == "boolean":
        return value if isinstance(value, bool) else None
    if field.numbered and number:
        return word(value)
    if field.type in ("category", "text", "date"):
        return value if isinstance(value, str) else None
    if field.type == "timestamp" and isinstance(value, str):
        return seconds(value)
    try:
        return float(value) if number else None
    except OverflowError:
        return math.inf


class Writer(Protocol):
    """Writes record batches of one schema."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Add a batch's rows."""

    def close(self) -> None:
        """Write the end of the format; the stream stays open."""


class _Parquet:
    def __init__(self, stream: pa.NativeFile, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(stream, schema, compression="zstd")

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()


class _Csv:
    """Writes CSV, with reasons joined by "; ", and a column for each of several values."""

    def __init__(self, stream: pa.NativeFile, schema: pa.Schema) -> None:
        self._flat = _flat(pa.RecordBatch.from_pylist([], schema)).schema
        self._writer = arrow_csv.CSVWriter(stream, self._flat)

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(_flat(batch))

    def close(self) -> None:
        self._writer.close()


class _JsonLines:
    def __init__(self, stream: pa.NativeFile, schema: pa.Schema) -> None:
        self._stream = stream

    def write(self, batch: pa.RecordBatch) -> None:
        self._stream.write(b"".join([msgspec.json.encode(row) + b"\n" for row in batch.to_pylist()]))

    def close(self) -> None:
        """Write nothing, because JSON lines end with the last line."""


WRITERS: dict[str, Callable[[pa.NativeFile, pa.Schema], Writer]] = {
    "parquet": _Parquet,
    "csv": _Csv,
    "jsonl": _JsonLines,
}


def _flat(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns: dict[str, pa.Array] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_list(column.type):
            columns[name] = pa.array(["; ".join(texts or []) for texts in column.to_pylist()], pa.string())
        elif pa.types.is_struct(column.type):
            columns |= {f"{name}.{part.name}": column.field(part.name) for part in column.type}
        else:
            columns[name] = column
    return pa.RecordBatch.from_pydict(columns)
