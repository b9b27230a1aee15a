"""Load a bundle: every digest is verified before anything is parsed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from tabserve.bundle import agreement, formats, manifest, reference, signature
from tabserve.bundle.errors import BundleError
from tabserve.bundle.files import File
from tabserve.bundle.manifest import (
    MANIFEST,
    MAX_BYTES,
    MAX_MANIFEST_BYTES,
    REFERENCE,
    SCHEMA,
    SIGNATURE,
    FileEntry,
    Manifest,
)
from tabserve.schema import reading
from tabserve.schema.schema import Schema

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FOLDER = "Give the folder that tabserve.train.save wrote."
Part: TypeAlias = Literal["model", "preprocessor"]
_CHANGED, _LATER = "changed while it was loaded", "Load it again when nobody writes to the folder."
_AGAIN = "Copy the bundle again, or save it again."


class Bundle(msgspec.Struct, frozen=True):
    """A verified bundle. Its model is not loaded yet: `tabserve.engines.load` does that.

    digest: `sha256:…` of `bundle.json`, which names the whole bundle.
    trusted: types in a skops file to load besides the known safe ones.
    """

    path: Path
    manifest: Manifest
    schema: Schema
    digest: str
    reference: reference.Reference
    trusted: tuple[str, ...] = ()

    def file(self, name: str) -> Path:
        """The path of one of the bundle's files."""
        return self.path / name

    def read(self, name: str) -> File:
        """One of the bundle's files, with the content that was verified. Raises BundleError."""
        return read_file(self.path, self.manifest, name)


def load(
    path: str | os.PathLike[str],
    *,
    digest: str | None = None,
    allow_joblib: bool = False,
    trusted: Sequence[str] = (),
    opened: Sequence[Part] = ("model", "preprocessor"),
    signed_by: str | os.PathLike[str] | None = None,
) -> Bundle:
    """Verify a bundle and read its manifest, schema and reference rows; imports no ML library.

    digest: refuse any bundle but this one. allow_joblib: accept a model or preprocessor that is a pickle, which
    runs its author's code when an engine loads it. opened: what will be loaded here; the transformer leaves the model
    to the predictor, so it may be a pickle. trusted: types that a skops file may hold besides the known safe ones.
    signed_by: a PEM file with public keys or authorities, one of which must have signed the bundle.
    Raises BundleError.
    """
    folder = Path(path)
    contents, found = read_manifest(folder, digest, signed_by)
    verify_files(folder, contents)
    verify_formats(folder, contents, allow_joblib=allow_joblib, opened=opened)
    schema = read_schema(folder, contents)
    rows = reference.read(read_file(folder, contents, REFERENCE))
    return Bundle(folder, contents, schema, found, rows, tuple(trusted))


def read_manifest(
    folder: Path, digest: str | None, signed_by: str | os.PathLike[str] | None = None
) -> tuple[Manifest, str]:
    """The manifest and its digest, which must be the given one, and signed if `signed_by` says so.

    Raises BundleError.
    """
    data = _manifest_bytes(folder)
    found = manifest.digest(data)
    if digest not in (None, found):
        raise BundleError(MANIFEST, f"expected digest {digest}, got {found}", "Give the bundle with that digest.")
    signed = signature.verify(folder, data, signed_by) if signed_by else None
    contents = manifest.decode(data)
    if signed is not None:
        signature.verify_names(signed, contents)
    return contents, found


def read_file(folder: Path, contents: Manifest, name: str) -> File:
    """A file with the digest that the manifest has for it, if it has one. Raises BundleError."""
    try:
        with open(os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
            file = File(name, opened.read())
    except OSError as error:
        raise BundleError(name, f"cannot be read: {error.strerror}", _AGAIN) from error
    expected = contents.files.get(name)
    if expected is not None and file.sha256 != expected.sha256:
        raise BundleError(name, _CHANGED, _LATER)
    return file


def verify_files(folder: Path, contents: Manifest) -> None:
    """Refuse a folder whose files differ from the manifest in name, kind, size or digest. Raises BundleError."""
    for name in contents.files:
        if not _PLAIN_NAME.fullmatch(name) or name in (MANIFEST, SIGNATURE):
            raise BundleError(MANIFEST, f"file name {name!r} leads outside the bundle", "Save the bundle again.")
    for name in (SCHEMA, REFERENCE, *_named(contents)):
        if name not in contents.files:
            raise BundleError(name, "used by the manifest without a digest", "Save the bundle again.")
    present = {entry.name for entry in os.scandir(folder)} - {MANIFEST, SIGNATURE}
    for name in sorted(present - contents.files.keys()):
        raise BundleError(name, "not in the manifest", "Remove it: a bundle holds nothing but what was released.")
    for name, most in MAX_BYTES.items():
        if contents.files[name].size > most:
            raise BundleError(name, f"over {most} bytes", "Save the bundle again with a smaller one.")
    for name, expected in contents.files.items():
        _verify_file(folder / name, expected)


def verify_formats(
    folder: Path, contents: Manifest, *, allow_joblib: bool, opened: Sequence[Part] = ("model", "preprocessor")
) -> None:
    """Refuse a model or preprocessor that is not what the manifest says, or a pickle that would be opened here.

    Raises BundleError.
    """
    model, preprocessor = contents.model, contents.preprocessor
    formats.verify(folder / model.file, model.format, allow_joblib=allow_joblib or "model" not in opened)
    if model.onnx is not None:
        formats.verify(folder / model.onnx, "onnx", allow_joblib=allow_joblib)
    if preprocessor is not None:
        allowed = allow_joblib or "preprocessor" not in opened
        formats.verify(folder / preprocessor.file, preprocessor.format, allow_joblib=allowed)


def read_schema(folder: Path, contents: Manifest) -> Schema:
    """The schema, which must fit the model. Raises BundleError."""
    try:
        schema = reading.decode(read_file(folder, contents, SCHEMA).content, str(folder / SCHEMA))
    except ValueError as error:
        raise BundleError(SCHEMA, str(error), "Correct the schema and save the bundle again.") from error
    agreement.verify(contents, schema)
    return schema


def _named(contents: Manifest) -> list[str]:
    preprocessor = contents.preprocessor
    names = [contents.model.file, contents.model.onnx, preprocessor.file if preprocessor else None]
    return [name for name in names if name is not None]


def _verify_file(path: Path, expected: FileEntry) -> None:
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(path.name, "not a regular file (a link or a folder)", _AGAIN)
        # The size first: a file that grew is not read to its end.
        found = manifest.entry(path) if status.st_size == expected.size else None
    except FileNotFoundError as error:
        raise BundleError(path.name, "missing", _AGAIN) from error
    except OSError as error:
        raise BundleError(path.name, f"cannot be read: {error.strerror}", "Check its permissions.") from error
    if found is None:
        raise BundleError(path.name, f"expected {expected.size} bytes, got {status.st_size}", _AGAIN)
    if found != expected:
        raise BundleError(path.name, f"expected sha256 {expected.sha256}, got {found.sha256}", _AGAIN)


def _manifest_bytes(folder: Path) -> bytes:
    path = folder / MANIFEST
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError as error:
        raise BundleError(str(path), "missing, so this is not a bundle", _FOLDER) from error
    except OSError as error:
        raise BundleError(str(path), f"cannot be read: {error.strerror}", _FOLDER) from error
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleError(MANIFEST, f"over {MAX_MANIFEST_BYTES} bytes", "Save the bundle again.")
    return data
