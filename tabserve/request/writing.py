"""Write answers as they come: as a table, CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Protocol

from tabserve import terminal

FORMATS = ("table", "csv", "jsonl", "parquet")


class Sink(Protocol):
    """Writes rows of answers."""

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write more rows."""

    def close(self) -> None:
        """Write the end."""


def sink(kind: str, stream: IO[bytes], names: Sequence[str], targets: Sequence[str]) -> Sink:
    """What writes a format. names: the columns, if no answer comes. targets: the names in `predict`.

    Raises FileError if Parquet cannot be written.
    """
    if kind == "parquet":
        return _Parquet(stream, names, targets)
    text = io.TextIOWrapper(stream, "utf-8", newline="", write_through=True)
    return _TEXTS[kind](text, names)


class _Text:
    def __init__(self, text: io.TextIOWrapper, names: Sequence[str]) -> None:
        self._text, self._names = text, names

    def close(self) -> None:
        self._text.flush()
        self._text.detach()


class _JsonLines(_Text):
    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._text.write("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))


class _Csv(_Text):
    """With reasons joined by "; ", and a column for each of several values."""

    _writer: Any = None

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if self._writer is None:
            self._begin(_flat(rows[0]) if rows else self._names)
        self._writer.writerows(map(_flat, rows))

    def close(self) -> None:
        if self._writer is None:
            self._begin(self._names)
        super().close()

    def _begin(self, names: Any) -> None:
        self._writer = csv.DictWriter(self._text, list(names), extrasaction="ignore", lineterminator="\n")
        self._writer.writeheader()


class _Table(_Text):
    """Aligned by the widths of the first rows that come together."""

    _widths: dict[str, int] | None = None

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        cells = [terminal.cells(row) for row in rows]
        if self._widths is None and cells:
            cells = [dict(zip(cells[0], cells[0], strict=True)), *cells]
            self._widths = terminal.widths(cells)
        self._text.write("".join(f"{line}\n" for line in terminal.aligned(cells, self._widths or {})))


_TEXTS: dict[str, Callable[[io.TextIOWrapper, Sequence[str]], Sink]] = {
    "table": _Table,
    "csv": _Csv,
    "jsonl": _JsonLines,
}


class _Parquet:
    """With the types of an answer; kept columns are text."""

    def __init__(self, stream: IO[bytes], names: Sequence[str], targets: Sequence[str]) -> None:
        import pyarrow as pa

        from tabserve.scoring.scorer import answer_types
        from tabserve.scoring.tables import WRITERS

        types = {**answer_types(targets), "line": pa.int64(), "row": pa.int64()}
        self._schema = pa.schema([pa.field(name, types.get(name, pa.string())) for name in names])
        self._texts = [name for name in names if name not in types]
        self._batch = pa.RecordBatch.from_pylist
        self._stream = stream
        self._writer = WRITERS["parquet"](stream, self._schema)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        made = [{**row, **{name: _as_text(row.get(name)) for name in self._texts}} for row in rows]
        self._writer.write(self._batch(made, self._schema))

    def close(self) -> None:
        self._writer.close()
        self._stream.flush()


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            made |= {f"{name}.{part}": one for part, one in value.items()}
        else:
            made[name] = "; ".join(map(str, value)) if isinstance(value, list) else value
    return made
