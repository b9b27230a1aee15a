"""What the doctor asks the Kubernetes API: answers to GETs, by path."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

from tabserve import kubeconfig

Json: TypeAlias = dict[str, Any]
Read: TypeAlias = Callable[[str], str]
"""The answer to a GET of an API path, as text. Raises Absent or Forbidden."""
Get: TypeAlias = Callable[[str], Json]
"""The same, as JSON."""
_SECONDS = 15


class Absent(Exception):
    """The cluster does not have what was asked for."""


class Forbidden(Exception):
    """The kubeconfig's user is not allowed to look."""


def connect(context: str | None) -> Read:
    """A GET with the rights of the kubeconfig. Raises OSError if there is none, and when no cluster answers."""
    ask = kubeconfig.connect(context, _SECONDS)

    def read(path: str) -> str:
        status, text = ask("GET", path, None)
        if status in (401, 403):
            raise Forbidden(path)
        if status >= 400:
            raise Absent(path)
        return text.decode(errors="replace")

    return read


def decoded(read: Read) -> Get:
    """A GET that gives JSON."""

    def get(path: str) -> Json:
        found: Json = json.loads(read(path))
        return found

    return get
