"""Check a bundle: every step of loading it, one finding each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tabserve.bundle import libraries, loading, reference
from tabserve.bundle.errors import BundleError
from tabserve.bundle.manifest import REFERENCE, Manifest
from tabserve.schema.schema import Schema

_SECONDS = 600.0


class Finding(msgspec.Struct, frozen=True):
    """One thing that was checked. detail: what was found and, after a failure, what to do."""

    check: str
    ok: bool
    detail: str


def check(
    path: str | os.PathLike[str],
    *,
    digest: str | None = None,
    allow_joblib: bool = False,
    trusted: Sequence[str] = (),
    signed_by: str | os.PathLike[str] | None = None,
) -> list[Finding]:
    """Everything a service would find out about a bundle when it starts; ends with the first failure.

    The arguments are as in `load`. The model is loaded in a separate process, because a malformed file can crash
    XGBoost (dmlc/xgboost#7903); a crash is a failed check like any other.
    """
    steps = _Steps(Path(path), digest, allow_joblib, tuple(trusted), signed_by)
    findings: list[Finding] = []
    for name in ("manifest", "files", "formats", "schema", "reference", "libraries"):
        try:
            findings.append(Finding(name, True, getattr(steps, name)()))
        except BundleError as error:
            return [*findings, Finding(name, False, str(error))]
    return [*findings, *steps.replay(), *steps.trial()]


class _Steps:
    """The steps before the model is loaded, each of which says what it found or raises BundleError."""

    _contents: Manifest
    _schema: Schema

    def __init__(
        self,
        folder: Path,
        digest: str | None,
        allow_joblib: bool,
        trusted: tuple[str, ...],
        signed_by: str | os.PathLike[str] | None,
    ) -> None:
        self._folder, self._digest, self._signed_by = folder, digest, signed_by
        self._allow_joblib, self._trusted = allow_joblib, trusted

    def manifest(self) -> str:
        self._contents, self._digest = loading.read_manifest(self._folder, self._digest, self._signed_by)
        contents = self._contents
        signed = f", signed as {self._signed_by} says" if self._signed_by else ""
        return f"{contents.name} {contents.version}, {contents.task}, saved {contents.created}, {self._digest}{signed}"

    def files(self) -> str:
        loading.verify_files(self._folder, self._contents)
        size = sum(entry.size for entry in self._contents.files.values())
        return f"{len(self._contents.files)} files, {size / 1e6:.1f} MB in all; every digest matches"

    def formats(self) -> str:
        loading.verify_formats(self._folder, self._contents, allow_joblib=self._allow_joblib)
        return f"{self._contents.model.file} is {self._contents.model.format}"

    def schema(self) -> str:
        self._schema = schema = loading.read_schema(self._folder, self._contents)
        return f"{len(schema.record)} fields, {len(schema.features)} features, fits the model"

    def reference(self) -> str:
        found = reference.read(loading.read_file(self._folder, self._contents, REFERENCE))
        return f"{len(next(iter(found.records.values())))} rows, outputs {', '.join(found.outputs)}"

    def libraries(self) -> str:
        saved_with = self._contents.libraries
        libraries.verify(saved_with, saved_with)
        return ", ".join(f"{name} {libraries.installed(name)}" for name in saved_with)

    def replay(self) -> list[Finding]:
        """What the decision log lacks to make decisions again; nothing if it lacks nothing."""
        words = {"hash": "hashed", "drop": "dropped"}
        lacking = [
            f"`{field.name}` is {words[field.logged]}"
            for field in self._schema.record
            if field.logged != "keep" and field.name in self._schema.fields_read
        ]
        if not lacking:
            return []
        return [Finding("replay", True, f"logged decisions cannot be replayed: {', '.join(lacking)}")]

    def trial(self) -> list[Finding]:
        """The findings of loading the model in another process."""
        command = [sys.executable, "-P", "-m", "tabserve.engines.isolated", str(self._folder), str(self._digest)]
        command += ["--allow-joblib"] if self._allow_joblib else []
        command += [f"--trusted={name}" for name in self._trusted]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return [Finding("model", False, f"still loading after {_SECONDS:.0f} s. Save the bundle again.")]
        if done.returncode == 0:
            return msgspec.json.decode(done.stdout.splitlines()[-1], type=list[Finding])
        file = self._contents.model.file
        return [Finding("model", False, f"{file}: loading it {_end(done.returncode)}. Save the bundle again.")]


def _end(code: int) -> str:
    return f"crashed the process ({signal.Signals(-code).name})" if code < 0 else f"ended the process with code {code}"
