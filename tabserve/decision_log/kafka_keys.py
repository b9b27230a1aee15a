"""librdkafka's own keys as a YAML file has them, with secrets from files and from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from tabserve.bundle import BundleError
from tabserve.schema import reading
from tabserve.schema.misfits import MisfitError, Misfits, Strict


class Secret(Strict, frozen=True):
    """A value that is somewhere else: in a file, without the end of its last line, or in a variable."""

    file: str = ""
    env: str = ""

    def _misfits(self) -> Misfits:
        if bool(self.file) == bool(self.env):
            yield MisfitError("expected either `file` or `env`")


Value: TypeAlias = str | int | float | bool | Secret
"""The value of one of librdkafka's keys."""


def misfits(keys: Mapping[str, Value], path: str, own: Mapping[str, str]) -> Misfits:
    """The keys that may not be set. own: these, and what to do instead."""
    for name in keys:
        if name in own:
            yield MisfitError(f"this key is not to be set: {own[name]}", path, name)


class _File(Strict, frozen=True):
    kafka: Mapping[str, Value] = {}


def read(path: str, setting: str) -> Mapping[str, Value]:
    """The keys in a YAML file, none if there is no path. setting: what names the file. Raises BundleError."""
    if not path:
        return {}
    try:
        return reading.parse_as(_File, Path(path).read_text("utf-8"), path).kafka
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}"
        raise BundleError(setting, problem, "Name a file that the service may read.") from error
    except (reading.SchemaError, UnicodeDecodeError) as error:
        raise BundleError(setting, str(error), "Write librdkafka's keys below `kafka`.") from error


def resolved(keys: Mapping[str, Value]) -> dict[str, str]:
    """The keys with values as texts, secrets among them. Raises BundleError for a secret that cannot be read."""
    return {name: _text(name, value) for name, value in keys.items()}


def _text(name: str, value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _secret(name, value) if isinstance(value, Secret) else str(value)


def _secret(name: str, secret: Secret) -> str:
    if secret.env:
        if secret.env not in os.environ:
            raise BundleError(name, f"the variable {secret.env} is not set", "Set it.")
        return os.environ[secret.env]
    try:
        return Path(secret.file).read_text("utf-8").rstrip("\r\n")
    except OSError as error:
        problem = f"{secret.file} cannot be read: {error.strerror}"
        raise BundleError(name, problem, "Name a file that the process may read.") from error
