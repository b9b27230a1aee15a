"""Read records from CSV, JSON lines or Parquet as a transformer takes them, and say where each was."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec

from tabserve.schema.cells import DELIMITERS, TRUTHS
from tabserve.schema.columns import Misfit, shown
from tabserve.schema.misfits import misnamed

ENDINGS = {"csv": (".csv", ".tsv"), "jsonl": (".jsonl", ".ndjson"), "parquet": (".parquet",)}
_MARKS = {b"PAR1": "parquet", b"\x1f\x8b": "gzip", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_BOM = b"\xef\xbb\xbf"
_BATCH_ROWS = 1 << 12


class FileError(Exception):
    """A file cannot be read; the message is for the user."""


class Row(NamedTuple):
    """A row of a file. number: its position, from 0. line: of the file, from 1; None in a file without lines.

    given: its cells or values by name. record: what is sent of it. fault: why it is no record.
    """

    number: int
    line: int | None
    given: dict[str, Any]
    record: dict[str, Any]
    fault: Misfit | None = None


class Options(NamedTuple):
    """How to read a file. format, delimiter: found by its content if None. decimal: the sign in numbers."""

    format: str | None = None
    delimiter: str | None = None
    encoding: str = "utf-8"
    decimal: str = "."


class Source:
    """The records of a file, or of standard input.

    name: of the file, for messages. datatypes: of the model's inputs by name. keep: other names that are wanted.
    """

    def __init__(
        self, name: str, stream: IO[bytes], size: int | None, datatypes: Mapping[str, str], options: Options
    ) -> None:
        """Find out the format. Raises FileError."""
        self.name, self._stream, self._size = name, io.BufferedReader(stream), size  # type: ignore[type-var]
        self._datatypes, self._options = datatypes, options
        self.format = options.format or self._found()
        self.names: list[str] | None = None
        """The names of the file's columns, None if only its rows have names."""
        self._share: Callable[[], float | None] = self._read_share

    def rows(self) -> Generator[Row, None, None]:
        """The rows, in order. Raises FileError."""
        return {"csv": self._csv, "jsonl": self._jsonl, "parquet": self._parquet}[self.format]()

    def share(self) -> float | None:
        """How much of the file is read, 0 to 1; None if its size is unknown."""
        return self._share()

    def _read_share(self) -> float | None:
        return min(1.0, self._stream.tell() / self._size) if self._size else None

    def _found(self) -> str:
        head = self._stream.peek(64)
        for mark, kind in _MARKS.items():
            if head.startswith(mark):
                return self._checked(kind)
        for kind, endings in ENDINGS.items():
            if self.name.lower().endswith(endings):
                return kind
        return "jsonl" if head.removeprefix(_BOM).lstrip().startswith(b"{") else "csv"

    def _checked(self, kind: str) -> str:
        if kind == "gzip":
            raise FileError(f"{self.name}: is compressed; unpack it first, such as: gzip -dc FILE | … --file -")
        if kind == "UTF-16" and self._options.encoding == "utf-8":
            raise FileError(f"{self.name}: is UTF-16; add --encoding utf-16")
        return "csv" if kind == "UTF-16" else kind

    def _csv(self) -> Generator[Row, None, None]:
        encoding = "utf-8-sig" if self._options.encoding == "utf-8" else self._options.encoding
        text = io.TextIOWrapper(self._stream, encoding, newline="")
        try:
            yield from self._lines_of_cells(text)
        except UnicodeDecodeError as error:
            raise FileError(self._told(error)) from None
        except csv.Error as error:
            raise FileError(f"{self.name}: {error}") from None
        finally:
            text.detach()  # the file is closed by who has opened it

    def _told(self, error: UnicodeDecodeError) -> str:
        got = f"0x{error.object[error.start]:02x}"
        hint = "if Excel or another program on Windows wrote it, add --encoding cp1252"
        return f"{self.name}: expected {self._options.encoding}, got the byte {got}; {hint}"

    def _lines_of_cells(self, text: io.TextIOWrapper) -> Generator[Row, None, None]:
        before, header = next(((at, line) for at, line in enumerate(text, 1) if line.strip()), (0, ""))
        if not header:
            raise FileError(f"{self.name}: is empty; expected a header with the names of fields")
        delimiter = self._options.delimiter or max(DELIMITERS, key=lambda sign: self._known(header, sign))
        names = _cells(header, delimiter)
        self._check_header(names, delimiter)
        self.names = names
        values = {
            name: _value_of(self._datatypes[name], self._options.decimal) for name in names if name in self._datatypes
        }
        reader = csv.reader(text, delimiter=delimiter)
        end, number = before, 0
        for cells in reader:
            line, end = end + 1, before + reader.line_num
            if not cells:
                continue
            given = dict(zip(names, cells, strict=False))
            if len(cells) == len(names):
                record = {name: value(given[name]) for name, value in values.items() if given[name] != ""}
                yield Row(number, line, given, record)
            else:
                fault = Misfit(number, "", f"{len(names)} cells, as in the header", str(len(cells)))
                yield Row(number, line, given, {}, fault)
            number += 1

    def _known(self, header: str, delimiter: str) -> int:
        return len(self._datatypes.keys() & set(_cells(header, delimiter)))

    def _check_header(self, names: Sequence[str], delimiter: str) -> None:
        """Raise FileError if a name comes twice, if no name is that of a field, or one is nearly a missing one."""
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise FileError(f"{self.name}: line 1: the column `{twice[0]}` comes twice")
        if not self._datatypes.keys() & set(names):
            fields, got = ", ".join(self._datatypes), ", ".join(name[:40] for name in names[:10])
            told = f"{self.name}: line 1: expected a header with the fields {fields}, got {got}"
            raise FileError(f"{told} (columns split at {delimiter!r}; --delimiter says where else)")
        self._check_names(names, "line 1: ")

    def _check_names(self, names: Sequence[str], where: str) -> None:
        meant = misnamed(frozenset(self._datatypes.keys() - set(names)), frozenset(set(names) - self._datatypes.keys()))
        if meant:
            raise FileError(f"{self.name}: {where}expected a column `{meant[0]}`, got `{meant[1]}` instead")

    def _jsonl(self) -> Generator[Row, None, None]:
        number = 0
        for line, text in enumerate(self._stream, 1):
            content = text.removeprefix(_BOM) if line == 1 else text
            if not content.strip():
                continue
            try:
                given = msgspec.json.decode(content, type=dict[str, Any])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                yield Row(number, line, {}, {}, Misfit(number, "", "a JSON object", str(error)))
            else:
                yield self._row(number, line, given)
            number += 1

    def _row(self, number: int, line: int | None, given: dict[str, Any]) -> Row:
        record = {name: value for name, value in given.items() if name in self._datatypes}
        if len(record) < min(len(given), len(self._datatypes)):
            absent, others = self._datatypes.keys() - given.keys(), given.keys() - record.keys()
            meant = misnamed(frozenset(absent), frozenset(others))
            if meant:
                return Row(number, line, given, record, Misfit(number, meant[0], "a value", f"`{meant[1]}` instead"))
        return Row(number, line, given, record)

    def _parquet(self) -> Generator[Row, None, None]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self._stream if self._size else pa.BufferReader(self._stream.read())) as file:
                self.names = file.schema_arrow.names
                self._check_names(self.names, "")
                number = 0
                self._share = lambda: number / max(1, file.metadata.num_rows)
                for batch in file.iter_batches(_BATCH_ROWS):
                    for given in batch.to_pylist():
                        yield self._row(number, None, {name: _json(value) for name, value in given.items()})
                        number += 1
        except pa.ArrowInvalid as error:
            raise FileError(f"{self.name}: expected Parquet: {error}") from None


def open_file(path: str) -> tuple[str, IO[bytes], int | None]:
    """The name, bytes and size of a file. Raises FileError."""
    try:
        found = Path(path)
        return path, found.open("rb", buffering=0), found.stat().st_size
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}") from None


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter), [])


def _value_of(datatype: str, decimal: str) -> Callable[[str], Any]:
    """What turns a cell into a value; a cell that does not fit is sent as it is, for the service to refuse by name."""
    if datatype == "BOOL":
        return lambda cell: TRUTHS.get(cell.lower(), cell)
    if datatype == "BYTES":
        return lambda cell: cell
    if decimal == ".":
        return _number
    return lambda cell: cell if "." in cell else _number(cell.replace(decimal, "."))


def _number(cell: str) -> Any:
    try:
        number = float(cell.replace("_", "?"))  # which Python would allow between digits
    except ValueError:
        return cell
    return number if math.isfinite(number) else cell


def _json(value: Any) -> Any:
    """A value of Parquet as JSON has it; times are UTC, and NaN is a missing number."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, Decimal):
        return float(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def told(name: str, row: Row, faults: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with a row, one line for each fault."""
    place = f"row {row.number}" if row.line is None else f"line {row.line} (row {row.number})"
    return "\n".join(
        f"{name}, {place}{_field(fault['field'])}: expected {fault['expected']}, got {fault['got']}" for fault in faults
    )


def _field(name: str) -> str:
    return f", field {shown(name)[1:-1]}" if name else ""
