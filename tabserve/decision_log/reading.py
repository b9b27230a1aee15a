"""Read a decision log in batches, so that memory does not grow with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import fs

from tabserve.decision_log.record import FORMAT, FORMAT_KEY
from tabserve.scoring.storage import Place, RunError, is_hidden

_BATCH_ROWS = 16_384
_TEXTS = ("id", "request_id", "source", "release", "digest", "engine", "versions")
_TYPES = {
    **dict.fromkeys(_TEXTS, pa.string()),
    "time": pa.timestamp("us", tz="UTC"),
    "row": pa.int32(),
    "rows": pa.int32(),
    "weight": pa.float64(),
}
"""The columns that every record has, whatever its bundle."""


def batches(log: str, where: pc.Expression | None = None) -> Iterator[pa.RecordBatch]:
    """The records of a log, file by file, in the order of the files' names.

    log: a file, or a folder with everything below it, here or in an object store. Names that begin with `_` or `.`
    are passed over. where: which records; row groups whose statistics exclude them are not read.
    Raises RunError, which names the file, and OSError if the log cannot be listed.
    """
    place = Place.of(log)
    for path in files(log):
        yield from of_file(place, path, where)


def files(log: str) -> list[str]:
    """The paths of a log's files, in order; `log` as of `batches`. Raises RunError if there are none, and OSError."""
    place = Place.of(log)
    return place.patiently(partial(_files, place, log))


def _files(place: Place, log: str) -> list[str]:
    (info,) = place.files.get_file_info([place.path])
    if info.type == fs.FileType.File:
        return [place.path]
    selector = fs.FileSelector(place.path, recursive=True, allow_not_found=True)
    paths = [one.path for one in place.files.get_file_info(selector) if one.type == fs.FileType.File]
    found = sorted(
        path
        for path in paths
        if path.endswith(".parquet") and not is_hidden(PurePosixPath(path).relative_to(place.path))
    )
    if not found:
        raise RunError(f"{log}: holds no decision records. Name the folder or the URI that the log is written to.")
    return found


def of_file(
    place: Place, path: str, where: pc.Expression | None = None, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The records of one of a log's files. columns: to read, of those that the file has; None for all.

    Raises RunError, which names the file.
    """
    try:
        fragment = ds.ParquetFileFormat().make_fragment(path, place.files)
        found = place.patiently(lambda: fragment.physical_schema)
        _verify(path, found)
        if where is not None and not fragment.count_rows(filter=where, use_threads=False):
            return  # only the columns of the condition were read
        yield from fragment.to_batches(
            columns=None if columns is None else [name for name in columns if name in found.names],
            filter=where,
            batch_size=_BATCH_ROWS,
            batch_readahead=1,
            fragment_readahead=1,
            use_threads=False,
        )
    except pa.ArrowInvalid as error:
        raise RunError(f"{path}: cannot be read as Parquet: {error}. Remove it from the log.") from error
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error}. Restore the file as it was written.") from error


def _verify(path: str, found: pa.Schema) -> None:
    """Refuse a file that holds no records of the format."""
    form = (found.metadata or {}).get(FORMAT_KEY.encode())
    if form is None:
        raise RunError(f"{path}: holds no decision records, but another table. Remove it from the log.")
    if form != str(FORMAT).encode():
        told = f"expected decision records of format {FORMAT}, got format {form.decode(errors='replace')}"
        raise RunError(f"{path}: {told}. Use the version of tabserve that wrote it.")
    for name, kind in _TYPES.items():
        got = found.field(name).type if name in found.names else "no such column"
        if got != kind:
            raise RunError(f"{path}: column `{name}`: expected {kind}, got {got}. Restore the file as it was written.")
