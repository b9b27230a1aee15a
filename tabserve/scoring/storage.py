"""Folders of files on this machine or in an object store."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TypeVar

import msgspec
import pyarrow as pa
from pyarrow import fs

_UNFINISHED = "_unfinished"
_PATIENCE_SECONDS, _LONGEST_PAUSE_SECONDS = 180.0, 15.0
_REQUEST_ATTEMPTS = 6
_T = TypeVar("_T")


class RunError(Exception):
    """A run cannot go on; what it has finished stays finished."""


def is_hidden(path: PurePosixPath) -> bool:
    """Whether readers of a folder pass over this path in it, because it or a folder of it begins with _ or a dot."""
    return any(part.startswith(("_", ".")) for part in path.parts)


class Place(msgspec.Struct, frozen=True):
    """A path on a file system: local, s3://, gs://, abfs://, or another that Arrow knows."""

    files: fs.FileSystem
    path: str

    @staticmethod
    def of(given: str) -> Place:
        """The place that a URI or local path names. Raises RunError."""
        if "://" not in given:
            return Place(fs.LocalFileSystem(), str(Path(given).absolute()))
        try:
            files, path = fs.FileSystem.from_uri(given)
            return Place(_retrying(files) if isinstance(files, fs.S3FileSystem) else files, path)
        except (pa.ArrowInvalid, OSError, ValueError) as error:
            raise RunError(f"{given}: {error}") from error

    @property
    def is_local(self) -> bool:
        """Whether the place is on this machine, where a failure is permanent."""
        return isinstance(self.files, fs.LocalFileSystem)

    def below(self, name: str) -> str:
        """A path in this folder."""
        return f"{self.path.rstrip('/')}/{name}"

    @contextmanager
    def whole(self, name: str, begun: str | None = None) -> Iterator[pa.NativeFile]:
        """A stream into a file of this folder, which appears under its name when the block ends without an error.

        begun: the name of what is not whole; one that no other has, if None.
        """
        unfinished = f"{_UNFINISHED}/{begun or secrets.token_hex(8)}"
        self._make_folder(unfinished)
        with self.files.open_output_stream(self.below(unfinished), compression=None) as stream:
            yield stream
        self._make_folder(name)
        self.files.move(self.below(unfinished), self.below(name))

    def _make_folder(self, name: str) -> None:
        """Make the folder of a file; object stores have none to make."""
        if self.is_local:
            self.files.create_dir(str(PurePosixPath(self.below(name)).parent), recursive=True)

    def has(self, name: str) -> bool:
        """Whether this folder has the file."""
        (info,) = self.files.get_file_info([self.below(name)])
        return bool(info.type == fs.FileType.File)

    def remove(self, name: str) -> None:
        """Remove a file from this folder, if it exists."""
        if self.has(name):
            self.files.delete_file(self.below(name))

    def read(self, name: str) -> bytes | None:
        """The contents of a file in this folder, None if it does not exist."""
        if not self.has(name):
            return None
        with self.files.open_input_stream(self.below(name)) as stream:
            content: bytes = stream.read()
        return content

    def clear(self) -> None:
        """Remove what was begun in this folder and is not whole."""
        (info,) = self.files.get_file_info([self.below(_UNFINISHED)])
        if info.type == fs.FileType.Directory:
            self.files.delete_dir(self.below(_UNFINISHED))

    def patiently(self, do: Callable[[], _T]) -> _T:
        """Call `do`, again and again while a store is unreachable or overloaded.

        Raises OSError three minutes after the first failure.
        """
        failed, pause = 0.0, 0.5
        while True:
            try:
                return do()
            except OSError as error:
                away = not self.is_local and not isinstance(error, FileNotFoundError | PermissionError)
                failed = failed or time.monotonic()
                if not away or time.monotonic() - failed > _PATIENCE_SECONDS:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _retrying(files: fs.S3FileSystem) -> fs.FileSystem:
    """The file system, which repeats single requests that S3 refuses; a URI can't ask for that.

    Without it a store that refuses now and then ends every upload of many parts.
    """
    rebuild, (options,) = files.__reduce__()
    strategy = fs.AwsStandardS3RetryStrategy(max_attempts=_REQUEST_ATTEMPTS)
    made: fs.FileSystem = rebuild({**options, "retry_strategy": strategy})
    return made
