"""Build the images with a container engine, and read what an image holds, without running it."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath

TARGETS = ("predictor", "transformer", "batch")
_PINNED = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}").fullmatch
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"

Wanted = Callable[[str], bool]


class ReleaseError(Exception):
    """A release cannot be made; the text says what was expected."""


def verify_pinned(base: str) -> None:
    """Refuse a base image that a tag names alone, because that can come to mean another one. Raises ReleaseError."""
    if not _PINNED(base):
        raise ReleaseError(
            f"BASE_IMAGE: expected NAME@sha256:DIGEST, got {base!r}; a tag can come to mean another image"
        )


def build(builder: str, base: str, source: Path, version: str, out: Path) -> list[Path]:
    """Build the images of a source tree as archives. builder: `docker`, `podman` or `buildah`. Raises ReleaseError."""
    verify_pinned(base)
    archives = []
    for target in TARGETS:
        name, archive = f"tabserve-{target}:{version}", out / f"tabserve-{target}-{version}.tar"
        archive.unlink(missing_ok=True)
        save = ["save", "-o", str(archive), name]
        if builder == "buildah":
            save = ["push", name, f"oci-archive:{archive}:{name}"]
        for command in (
            ["build", "--build-arg", f"BASE_IMAGE={base}", "--target", target, "-t", name, str(source)],
            save,
        ):
            if subprocess.run([builder, *command], check=False).returncode:
                raise ReleaseError(f"{builder} {command[0]} of {name} failed")
        archives.append(archive)
    return archives


def files(image: Path, wanted: Wanted) -> dict[str, bytes]:
    """The contents of the wanted files of an image, by their paths without the first slash.

    image: its root folder, or an archive as docker, podman or buildah write it.
    """
    if image.is_dir():
        found = ((path, str(path.relative_to(image))) for path in sorted(image.rglob("*")))
        return {name: path.read_bytes() for path, name in found if wanted(name) and path.is_file()}
    held: dict[str, bytes] = {}
    for layer in _layers(image):
        _apply(layer, held, wanted)
    return held


def _apply(layer: bytes, held: dict[str, bytes], wanted: Wanted) -> None:
    """Put a layer's wanted files over those of the layers below, and remove what it removes (OCI image-spec, layer)."""
    above: dict[str, bytes] = {}
    with tarfile.open(fileobj=BytesIO(layer)) as tar:
        for member in tar:
            path = PurePosixPath(member.name.removeprefix("./").lstrip("/"))
            if path.name == _OPAQUE:
                _remove(held, f"{path.parent}/")
            elif path.name.startswith(_WHITEOUT):
                gone = str(path.with_name(path.name.removeprefix(_WHITEOUT)))
                held.pop(gone, None)
                _remove(held, f"{gone}/")
            elif member.isfile() and wanted(str(path)):
                content = tar.extractfile(member)
                above[str(path)] = content.read() if content else b""
            elif not member.isdir():
                held.pop(str(path), None)
    held |= above


def _remove(held: dict[str, bytes], folder: str) -> None:
    for name in [name for name in held if name.startswith(folder)]:
        del held[name]


def _layers(archive: Path) -> Iterator[bytes]:
    """The layers of an image, lowest first, as tar."""
    with tarfile.open(archive) as tar:

        def read(name: str) -> bytes:
            content = tar.extractfile(name)
            assert content is not None, f"{archive}: {name} is no file"
            return content.read()

        if "index.json" in tar.getnames():
            manifest = json.loads(read(_blob(json.loads(read("index.json"))["manifests"][0])))
            names = [_blob(layer) for layer in manifest["layers"]]
        else:
            (manifest,) = json.loads(read("manifest.json"))
            names = manifest["Layers"]
        for name in names:
            data = read(name)
            yield gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def _blob(described: dict[str, str]) -> str:
    return f"blobs/{described['digest'].replace(':', '/')}"
