"""Parquet files of decision records in the making, each held in memory until it is whole."""

from __future__ import annotations

import secrets
import socket
from array import array
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from tabserve.decision_log.entry import Entry
from tabserve.decision_log.sinks import Sink

GROUP_ROWS, GROUP_BYTES = 16_384, 4 * 2**20
"""When records become a row group of the file."""
MOST_BYTES = 16 * 2**20
"""How long a file may become, whatever its rows."""


class Folder(NamedTuple):
    """Where an entry's records belong in the log. date: in UTC, YYYY-MM-DD."""

    date: str
    release: str

    @staticmethod
    def of(entry: Entry) -> Folder:
        """The folder of an entry's day and release."""
        return Folder(datetime.fromtimestamp(entry.time, UTC).date().isoformat(), entry.release)

    def __str__(self) -> str:
        return f"date={self.date}/release={quote(self.release, safe='') or 'none'}"


class Names:
    """Names of files that no other process gives: host, start, a random number, and a sequence."""

    def __init__(self) -> None:
        start = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        self._prefix = f"{socket.gethostname()}-{start}{secrets.token_hex(4)}"
        self._count = 0

    def next(self, folder: Folder) -> str:
        """The path of another file in the log."""
        self._count += 1
        return f"{folder}/{self._prefix}-{self._count:06}.parquet"


class Files:
    """Files of a log, in a sink."""

    at_once = False

    def __init__(self, sink: Sink) -> None:
        self._sink, self._names = sink, Names()

    def open(self) -> None:
        """Prepare the sink."""
        self._sink.open()

    def begin(self, folder: Folder, began: float) -> OpenFile:
        """A new file."""
        return OpenFile(folder, began, self._sink, self._names.next(folder))


class OpenFile:
    """A file that grows by tables of records, in compressed row groups.

    A Parquet file without its end cannot be read, so nothing is lost by keeping it in memory; and the same bytes can
    be written again where that failed.
    folder: where it belongs. began: the time at which its first record was put. sink, name: where it is stored as what.
    """

    def __init__(self, folder: Folder, began: float, sink: Sink, name: str) -> None:
        self.folder, self.began = folder, began
        self.times, self.stored = array("d"), 0
        self._sink, self._name, self._content = sink, name, pa.py_buffer(b"")
        self._stream = pa.BufferOutputStream()
        self._writer: pq.ParquetWriter | None = None
        self._pending: list[pa.Table] = []
        self._pending_rows = self._pending_bytes = 0

    @property
    def rows(self) -> int:
        """How many records it holds."""
        return len(self.times)

    @property
    def nbytes(self) -> int:
        """How long it is, with what has yet to be compressed."""
        return int(self._stream.tell()) + self._pending_bytes

    def add(self, table: pa.Table, times: Sequence[float]) -> None:
        """Append records. times: when each was put."""
        self.times.extend(times)
        self._pending.append(table)
        self._pending_rows += table.num_rows
        self._pending_bytes += table.nbytes
        if self._pending_rows >= GROUP_ROWS or self._pending_bytes >= GROUP_BYTES:
            self._flush()

    def end(self) -> None:
        """Write the end of the file, to which nothing can be added any more."""
        self._flush()
        assert self._writer is not None
        self._writer.close()
        self._content = self._stream.getvalue()

    def store(self) -> None:
        """Store the whole file. Raises OSError."""
        self._sink.write(self._name, self._content)
        self.stored = self.rows

    def abandon(self) -> None:
        """Nothing to do: what is not whole is not there."""

    def _flush(self) -> None:
        if not self._pending:
            return
        table = pa.concat_tables(self._pending).combine_chunks()
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._stream, table.schema, compression="zstd")
        self._writer.write_table(table, row_group_size=GROUP_ROWS)
        self._pending.clear()
        self._pending_rows = self._pending_bytes = 0
