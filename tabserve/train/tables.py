"""Read tables in files to draft a schema from, or as a sample: CSV with any usual delimiter, and Parquet."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tabserve.bundle.errors import BundleError
from tabserve.schema.cells import DELIMITERS, TRUTHS
from tabserve.schema.schema import Field, Schema
from tabserve.schema.timestamps import seconds

_ENDINGS = (".parquet", ".pq")


class Table(NamedTuple):
    """Columns of values by name, None where one is missing. texts: whether every value is text, as in a CSV file."""

    columns: dict[str, list[Any]]
    texts: bool


def read(path: Path) -> Table:
    """The table in a CSV or Parquet file. Raises BundleError."""
    table = _parquet(path) if path.suffix in _ENDINGS else _csv(path)
    if not next(iter(table.columns.values()), []):
        raise BundleError(path.name, "expected records, got none", "Give a file with a header and records.")
    return table


def sample(path: Path, schema: Schema) -> dict[str, list[Any]]:
    """The records in a CSV or Parquet file by column, texts read as the schema's types. Raises BundleError."""
    table = read(path)
    if not table.texts:
        return table.columns
    return {name: _typed(values, schema.fields.get(name)) for name, values in table.columns.items()}


def _typed(values: list[Any], field: Field | None) -> list[Any]:
    """Values as a field's type; a text that is not of it stays, to be refused by name."""
    read = _whole if field and field.numbered else _READ.get(field.type if field else "text", str)
    return [None if value is None else read(value) for value in values]


def _whole(text: str) -> int | str:
    return int(text) if text.lstrip("-").isascii() and text.lstrip("-").isdigit() and str(int(text)) == text else text


def _integer(text: str) -> float | int | str:
    whole = _whole(text)
    return _number(text) if isinstance(whole, str) else whole


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _truth(text: str) -> bool | str:
    return TRUTHS.get(text.lower(), text)


def _moment(text: str) -> float | str:
    return _number(text) if seconds(text) is None else text


_READ: Mapping[str, Callable[[str], Any]] = {
    "number": _number,
    "integer": _integer,
    "boolean": _truth,
    "timestamp": _moment,
}


def _csv(path: Path) -> Table:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        remedy = "Save it as UTF-8: iconv -f cp1252 -t utf-8, if it comes from Windows."
        raise BundleError(path.name, f"expected UTF-8, got other bytes at byte {error.start}", remedy) from error
    except OSError as error:
        raise BundleError(str(path), f"cannot be read: {error.strerror}", "Give a CSV or Parquet file.") from error
    delimiter = max(DELIMITERS, key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        names = next(reader, [])
        _verify_header(path, names)
        rows = [_of_width(path, reader.line_num, row, len(names)) for row in reader if row]
    except csv.Error as error:
        raise BundleError(path.name, f"line {reader.line_num}: {error}", "Correct the file.") from error
    return Table({name: [row[at] or None for row in rows] for at, name in enumerate(names)}, texts=True)


def _of_width(path: Path, line: int, row: list[str], width: int) -> list[str]:
    if len(row) != width:
        problem = f"line {line}: expected {width} cells, got {len(row)}"
        raise BundleError(path.name, problem, "Put a cell that holds the delimiter in quotes.")
    return row


def _verify_header(path: Path, names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not names or "" in names or twice:
        got = f"`{twice[0]}` twice" if twice else "a column without a name" if names else "an empty file"
        raise BundleError(path.name, f"expected a header with a name for each column, got {got}", "Name the columns.")


def _parquet(path: Path) -> Table:
    # Only Parquet needs pyarrow, which is of an extra of its own.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return Table(pq.read_table(path).to_pydict(), texts=False)
    except (pa.ArrowInvalid, OSError) as error:
        problem = f"not a Parquet file: {str(error).splitlines()[0]}"
        raise BundleError(path.name, problem, "Give a CSV or Parquet file.") from error
