"""Container images, made with buildah and imported into the node's containerd, without a registry."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from tests.cluster.testbed.places import cache
from tests.cluster.testbed.process import run

SCRATCH = "scratch"
PYTHON = "dev.local/python:testbed"  # Debian's Python on a minimal Debian: the base of images that need a libc
SUITE = "trixie"
USER = "65532:65532"
FOLDER = Path(__file__).parent / "images"


def buildah(*command: str | Path) -> str:
    """Run buildah with its own storage in the cache, without the machine's configuration."""
    storage = cache() / "buildah"
    return run("buildah", "--root", storage, "--runroot", storage / "run", "--storage-driver", "overlay",
               *command, env={"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(scratch_folder())})  # fmt: skip


def scratch_folder() -> Path:
    """The folder for buildah's temporary files."""
    folder = cache() / "tmp"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Source(Protocol):
    """The source of a program; see `build`."""

    @property
    def folder(self) -> Path:
        """The folder of the source's files; its name changes with the version."""


@dataclass(frozen=True)
class Image:
    """An image with one program on a base."""

    name: str  # dev.local/NAME:testbed
    source: Source
    file: str
    arguments: tuple[str, ...] = ()
    base: str = SCRATCH
    place: str = "/program"

    @property
    def tag(self) -> str:
        """The name that pods use for the image."""
        return f"dev.local/{self.name}:testbed"

    @property
    def archive(self) -> Path:
        """The OCI archive in the cache; its name changes with its contents."""
        parts = (self.source.folder.name, self.file, self.arguments, self.base, self.place, USER)
        return cache() / "images" / f"{self.name}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}.tar"

    def make(self) -> None:
        """Make the archive."""
        container = buildah("from", self.base).strip()
        buildah("copy", container, self.source.folder / self.file, self.place)
        entrypoint = json.dumps([self.place, *self.arguments])
        buildah("config", "--entrypoint", entrypoint, "--cmd", "", "--user", USER, container)
        commit(container, self.archive, self.tag)


@dataclass(frozen=True)
class PythonBase:
    """The base image: a minimal Debian with Python, from debootstrap."""

    name: str = "python"
    packages: tuple[str, ...] = ("python3", "python3-venv", "ca-certificates", "libgomp1")
    tag: str = PYTHON

    @property
    def archive(self) -> Path:
        """The OCI archive in the cache."""
        digest = hashlib.sha256(repr((self.packages, SUITE)).encode()).hexdigest()
        return cache() / "images" / f"{self.name}-{digest[:12]}.tar"

    def make(self) -> None:
        """Make the archive, and keep the image in buildah's storage for images based on it."""
        root = scratch_folder() / "debian"
        shutil.rmtree(root, ignore_errors=True)
        run("debootstrap", "--variant=minbase", f"--include={','.join(self.packages)}", SUITE, root)
        for emptied in "var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale":
            shutil.rmtree(root / emptied)
        for command in "python", "pip":
            (root / "usr/bin" / command).unlink(missing_ok=True)
        (root / "usr/bin/python").symlink_to("python3")
        container = buildah("from", SCRATCH).strip()
        buildah("copy", container, root, "/")
        buildah("config", "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
        commit(container, self.archive, self.tag)
        shutil.rmtree(root)


@dataclass(frozen=True)
class Built:
    """An image built from a Dockerfile on the Python base."""

    name: str
    dockerfile: Path
    context: Path
    copies: tuple[str, ...]  # files and folders of the context
    target: str = ""
    version: str = "testbed"
    arguments: tuple[str, ...] = ()  # NAME=VALUE, for the Dockerfile's ARG

    @property
    def tag(self) -> str:
        """The name that pods use for the image."""
        return f"dev.local/{self.name}:{self.version}"

    @cached_property  # files may change during the build
    def archive(self) -> Path:
        """The OCI archive in the cache; its name changes with every file that goes into it."""
        digest = hashlib.sha256(PYTHON_BASE.archive.name.encode())
        digest.update("".join(self.arguments).encode())
        for path in self.files():
            digest.update(str(path.relative_to(self.context)).encode() + path.read_bytes())
        return cache() / "images" / f"{self.name}-{digest.hexdigest()[:12]}.tar"

    def files(self) -> list[Path]:
        """The Dockerfile, and the files that it copies."""
        copied = [path for entry in self.copies for path in (self.context / entry, *(self.context / entry).rglob("*"))]
        return [self.dockerfile, *sorted(path for path in copied if path.is_file() and path.suffix != ".pyc")]

    def make(self) -> None:
        """Make the archive."""
        settings = package_settings()
        given = [part for name, value in settings.items() for part in ("--env", f"{name}={value}")]
        mounted = [part for folder in folders(settings) for part in ("--volume", f"{folder}:{folder}:ro")]
        target = ["--target", self.target] if self.target else []
        target += [part for argument in self.arguments for part in ("--build-arg", argument)]
        buildah("bud", "--pull-never", "--build-arg", f"BASE_IMAGE={PYTHON}", *given, *mounted, *target,
                "--tag", self.tag, "--file", self.dockerfile, self.context)  # fmt: skip
        container = buildah("from", self.tag).strip()
        buildah("config", *[part for name in settings for part in ("--env", f"{name}-")], container)  # forget them
        commit(container, self.archive, self.tag)


PYTHON_BASE = PythonBase()


def package_settings() -> dict[str, str]:
    """What pip and uv need to know about this machine to reach their package index during a build."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(("PIP_", "UV_INDEX", "UV_DEFAULT_INDEX")) or name == "SSL_CERT_FILE"
    }


def folders(settings: Mapping[str, str]) -> list[str]:
    """The folders on this machine that package settings point into: certificates and wheels."""
    bundles = [settings[name] for name in ("PIP_CERT", "SSL_CERT_FILE") if name in settings]
    named = [str(Path(bundle).parent) for bundle in bundles] + settings.get("PIP_FIND_LINKS", "").split()
    return sorted({folder for folder in named if Path(folder).is_dir()})


def commit(container: str, archive: Path, tag: str) -> None:
    """Turn a working container into an image, in buildah's storage and as an archive, and remove the container."""
    buildah("commit", "--rm", container, tag)
    push(tag, archive)


def push(tag: str, archive: Path) -> None:
    """Write an image from buildah's storage as an OCI archive, whole or not at all."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    unfinished = archive.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    buildah("push", tag, f"oci-archive:{unfinished}:{tag}")
    unfinished.rename(archive)
