"""Make the wheel and the chart's archive, whose bytes depend on the sources alone."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path


def sources(repository: Path, folder: Path) -> int:
    """Write the committed files of a repository into a folder; returns the commit's time, in seconds since 1970."""
    packed = subprocess.run(["git", "-C", repository, "archive", "HEAD"], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(packed)) as tar:
        tar.extractall(folder, filter="data")
    return int(_git(repository, "log", "-1", "--format=%ct"))


def commit(repository: Path) -> str:
    """The commit's id."""
    return _git(repository, "rev-parse", "HEAD")


def wheel(source: Path, epoch: int, out: Path) -> Path:
    """The wheel of a source tree."""
    folder = out / "wheel"
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "uv",
        "build",
        "-q",
        "--wheel",
        "--no-build-isolation",
        "--out-dir",
        folder,
        source,
    ]
    subprocess.run(command, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)})
    (made,) = folder.glob("*.whl")
    return _moved(made, out)


def chart(source: Path, helm: Path, epoch: int, out: Path) -> Path:
    """The chart's archive, as `helm package` makes it, but without the time at which it was made."""
    folder = out / "chart"
    folder.mkdir()
    command: list[str | Path] = [helm, "package", source / "charts" / "tabserve", "--destination", folder]
    subprocess.run(command, check=True, capture_output=True)
    (made,) = folder.glob("*.tgz")
    made.write_bytes(repacked(made.read_bytes(), epoch))
    return _moved(made, out)


def repacked(archive: bytes, epoch: int) -> bytes:
    """A compressed tar with the same files, in the order of their names, all of this time and of nobody's."""
    packed = BytesIO()
    with tarfile.open(fileobj=BytesIO(archive)) as given, tarfile.open(fileobj=packed, mode="w") as made:
        for member in sorted(given.getmembers(), key=lambda each: each.name):
            content = given.extractfile(member)
            plain = tarfile.TarInfo(member.name)
            plain.size, plain.mtime, plain.mode = member.size, epoch, 0o644
            made.addfile(plain, content)
    return gzip.compress(packed.getvalue(), mtime=0)


def _moved(made: Path, out: Path) -> Path:
    target = out / made.name
    made.rename(target)
    for left in made.parent.iterdir():
        left.unlink()
    made.parent.rmdir()
    return target


def _git(repository: Path, *command: str) -> str:
    done = subprocess.run(["git", "-C", repository, *command], check=True, capture_output=True, text=True)
    return done.stdout.strip()
