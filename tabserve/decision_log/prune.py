"""Remove from a decision log what is too old, what must be forgotten, and what was never finished."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from tabserve.decision_log.files import GROUP_ROWS
from tabserve.decision_log.sinks import FolderSink, Sink, StoreSink
from tabserve.scoring.storage import Place, RunError, is_hidden

ERASED = ".erased"
"""How the names of files end that a rewriting has begun."""
STALE, ABANDONED = timedelta(days=1), timedelta(hours=1)
"""How long nobody has written to a temporary file that is removed: in general, and where records are to be erased."""
_DATE = re.compile(r"date=(\d{4}-\d\d-\d\d)").fullmatch
Tell = Callable[[str], None]


class _File(NamedTuple):
    """A file of a log. name: its path in the log."""

    name: PurePosixPath
    modified: datetime

    @property
    def is_temporary(self) -> bool:
        return is_hidden(self.name)

    @property
    def is_ours(self) -> bool:
        return self.name.name.endswith(ERASED)

    @property
    def day(self) -> str:
        """The day of its records, "" if its name has none."""
        found = _DATE(self.name.parts[0])
        return found[1] if found else ""


class Pruning:
    """What `tabserve log prune` does to a log, or would do.

    tell: called with a sentence about each day or file. dry: change nothing.
    """

    def __init__(self, log: str, tell: Tell, *, dry: bool = False) -> None:
        """Find the log. Raises RunError if it is not there."""
        self._place = Place.of(log)
        self._tell, self._dry = tell, dry
        self._sink: Sink = FolderSink(Path(self._place.path), ERASED) if self._place.is_local else StoreSink(log)
        self._gone: set[PurePosixPath] = set()
        (info,) = self._place.files.get_file_info([self._place.path])
        if info.type != fs.FileType.Directory:
            raise RunError(f"{log}: no such folder")

    def clear(self, now: datetime, age: timedelta) -> None:
        """Remove temporary files of this age, and those of an earlier run of this command. Raises OSError."""
        stale = [one for one in self._files() if one.is_temporary and (now - one.modified > age or one.is_ours)]
        for one in stale:
            self._remove(one)
        if stale:
            self._tell(f"{len(stale)} temporary files {self._done('removed')}")

    def forget(self, days: int, now: datetime) -> None:
        """Remove whole days that ended at least so many days ago. Raises OSError."""
        last = (now.astimezone(UTC).date() - timedelta(days=days)).isoformat()
        files = [one for one in self._files() if one.day and one.day < last]
        for day in sorted({one.day for one in files}):
            if not self._dry:
                self._place.files.delete_dir(self._place.below(f"date={day}"))
            self._tell(f"{day}: {sum(one.day == day for one in files)} files {self._done('removed')}")
        self._gone |= {one.name for one in files}
        if not files:
            self._tell(f"no day before {last}")

    def erase(self, ids: Collection[str], now: datetime) -> None:
        """Rewrite every file that has records with these ids, without them. Raises OSError.

        Each file is replaced at once. Those that are being written are only told of.
        """
        wanted = pa.array(sorted(ids), pa.string())
        rows = count = 0
        for one in self._files():
            found = 0 if one.is_temporary or one.name.suffix != ".parquet" else self._erase(one, wanted)
            rows, count = rows + found, count + bool(found)
        self._tell(f"{rows} records of {len(ids)} ids {self._done('erased')} from {count} files")
        if left := sum(one.is_temporary and now - one.modified <= ABANDONED for one in self._files()):
            self._tell(f"{left} files were being written, and may hold the ids: erase again when they are finished")

    def _files(self) -> list[_File]:
        """Those that are not gone, or would not be."""
        found = self._place.files.get_file_info(fs.FileSelector(self._place.path, recursive=True))
        files = [info for info in found if info.type == fs.FileType.File]
        named = [_File(PurePosixPath(info.path).relative_to(self._place.path), info.mtime) for info in files]
        return [one for one in named if one.name not in self._gone]

    def _erase(self, one: _File, ids: pa.Array) -> int:
        """How many records with these ids a file had."""
        with self._place.files.open_input_file(self._place.below(str(one.name))) as stream:
            try:
                found, kept, content = _without(pq.ParquetFile(stream), ids)
            except (pa.ArrowException, KeyError) as error:
                raise RunError(f"{one.name}: no file of decision records: {error}") from error
        if not found:
            return 0
        self._tell(f"{one.name}: {found} records {self._done('erased')}")
        if self._dry:
            return found
        if kept:
            self._sink.write(str(one.name), content)
        else:
            self._remove(one)
        return found

    def _remove(self, one: _File) -> None:
        self._gone.add(one.name)
        if not self._dry:
            self._place.files.delete_file(self._place.below(str(one.name)))

    def _done(self, word: str) -> str:
        return f"would be {word}" if self._dry else word


def _groups(file: pq.ParquetFile) -> range:
    return range(file.metadata.num_row_groups)


def _has(table: pa.Table, ids: pa.Array) -> pa.ChunkedArray:
    return pc.is_in(table.column("id"), value_set=ids)


def _without(file: pq.ParquetFile, ids: pa.Array) -> tuple[int, int, pa.Buffer]:
    """How many records have these ids, how many have not, and a file of the latter; empty if all are."""
    found = sum(pc.sum(_has(file.read_row_group(group, ["id"]), ids)).as_py() or 0 for group in _groups(file))
    if not found:
        return 0, file.metadata.num_rows, pa.py_buffer(b"")
    stream = pa.BufferOutputStream()
    with pq.ParquetWriter(stream, file.schema_arrow, compression="zstd") as writer:
        for group in _groups(file):
            table = file.read_row_group(group)
            table = table.filter(pc.invert(_has(table, ids)))
            if table.num_rows:
                writer.write_table(table, row_group_size=GROUP_ROWS)
    return found, file.metadata.num_rows - found, stream.getvalue()


def prune(log: str, days: int | None, ids: Collection[str], tell: Tell, *, dry: bool) -> None:
    """Remove days that are older, records with these ids, and temporary files that nobody finishes.

    Raises RunError if the log is not there, or has a file of something else, and OSError.
    """
    pruning, now = Pruning(log, tell, dry=dry), datetime.now(UTC)
    pruning.clear(now, ABANDONED if ids else STALE)
    if days is not None:
        pruning.forget(days, now)
    if ids:
        pruning.erase(ids, now)
