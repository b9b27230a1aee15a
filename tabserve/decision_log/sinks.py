"""Where a decision log's files go: a folder, or an object store. A file is there as a whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import urlsplit

import pyarrow as pa

from tabserve.bundle import BundleError
from tabserve.scoring.storage import Place, RunError

UNFINISHED = ".unfinished"
"""How the names of files end that are not whole; they also begin with _, so that readers pass them over."""
KAFKA = "kafka://"
STORES = ("s3", "gs", "gcs", "abfs", "abfss")


class Sink(Protocol):
    """Takes whole files."""

    def open(self) -> None:
        """Do now what would make the first write late; never fails, because the write will tell what is wrong."""

    def write(self, name: str, content: pa.Buffer) -> None:
        """Store a file, replacing one of its name; it is durable when the call returns. Raises OSError."""


class FolderSink:
    """Files below a folder of this machine. unfinished: how names end while the files are being written."""

    def __init__(self, folder: Path, unfinished: str = UNFINISHED) -> None:
        self._folder, self._unfinished = folder, unfinished

    def open(self) -> None:
        """Nothing to do."""

    def write(self, name: str, content: pa.Buffer) -> None:
        """Store a file: written under another name, synced, renamed. Raises OSError."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"_{path.stem}{self._unfinished}")
        try:
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(path)
        except OSError:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
        for folder in PurePosixPath(name).parents:
            _sync(self._folder / folder)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class StoreSink:
    """Objects below a place of an object store."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._place: Place | None = None

    def open(self) -> None:
        """Look for region, credentials and the store, which can take longer than a service has to end."""
        with suppress(OSError):
            place = self._opened()
            place.files.get_file_info(place.path)

    def _opened(self) -> Place:
        try:
            place = self._place = self._place or Place.of(self._uri)
        except RunError as error:
            raise OSError(str(error.__cause__)) from error  # its own words may hold what the URI has of credentials
        return place

    def write(self, name: str, content: pa.Buffer) -> None:
        """Store an object by one upload, which is complete or no object. Raises OSError."""
        place = self._opened()
        stream = place.files.open_output_stream(place.below(name), compression=None)
        stream.write(content)
        stream.close()


def sink(to: str) -> Sink:
    """The sink that a path or URI names. Raises BundleError if it cannot be one, or the folder cannot be written to."""
    scheme = urlsplit(to).scheme if "://" in to else "file"
    if scheme in STORES:
        return StoreSink(to)
    if scheme != "file":
        known = ", ".join([*(f"{each}://" for each in STORES), f"or {KAFKA}BROKERS/TOPIC"])
        raise BundleError(
            "decision_log", f"cannot write to {scheme}://", f"Name a folder, or a place in a store: {known}."
        )
    folder = Path(to.removeprefix("file://"))
    try:
        _try(folder)
    except OSError as error:
        raise BundleError(
            "decision_log",
            f"cannot write to {folder}: {error.strerror}",
            "Name a folder that the service may write to.",
        ) from error
    return FolderSink(folder)


def _try(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    attempt = folder / f"_{secrets.token_hex(8)}{UNFINISHED}"
    attempt.touch()
    attempt.unlink()
