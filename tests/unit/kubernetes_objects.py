"""A Kubernetes API of a few kinds in memory, for programs that take what asks it as an argument."""

from __future__ import annotations

import copy
import json
from typing import Any
from urllib.parse import urlsplit

from tabserve.kubeconfig import Away

Object = dict[str, Any]


class Objects:
    """Objects by path. asked: method and path of each request, in order. away: whether it does not answer."""

    def __init__(self) -> None:
        self.stored: dict[str, Object] = {}
        self.asked: list[tuple[str, str]] = []
        self.away = False

    def __call__(self, method: str, path: str, body: Object | None) -> tuple[int, bytes]:
        """Answer one request. Raises Away."""
        if self.away:
            raise Away("no answer")
        place = urlsplit(path).path
        self.asked.append((method, place.rpartition("/namespaces/models/")[2]))
        status, found = getattr(self, f"_{method.lower()}")(place, copy.deepcopy(body))
        return status, json.dumps(found).encode()

    def of(self, plural: str) -> list[Object]:
        """All objects of a kind."""
        return [found for path, found in self.stored.items() if f"/{plural}/" in path]

    def put(self, path: str, found: Object) -> None:
        """Store an object below the namespace's path."""
        self.stored[path] = found

    def _get(self, place: str, _: Object | None) -> tuple[int, Object]:
        if place in self.stored:
            return 200, self.stored[place]
        if place.rpartition("/")[2] in ("pods", "jobs"):
            return 200, {"items": [found for path, found in self.stored.items() if path.startswith(place + "/")]}
        return 404, {"message": "not found"}

    def _post(self, place: str, body: Object | None) -> tuple[int, Object]:
        assert body is not None
        name = body["metadata"].get("name") or f"{body['metadata']['generateName']}{len(self.asked)}"
        if f"{place}/{name}" in self.stored:
            return 409, {"message": "exists"}
        body["metadata"]["generation"] = 1
        self.stored[f"{place}/{name}"] = body
        return 201, body

    def _patch(self, place: str, body: Object | None) -> tuple[int, Object]:
        found = self.stored.get(place)
        if found is None:
            return 404, {"message": "not found"}
        before = copy.deepcopy(found.get("spec"))
        _merge(found, body or {})
        if found.get("spec") != before:
            found["metadata"]["generation"] += 1
        return 200, found

    def _delete(self, place: str, _: Object | None) -> tuple[int, Object]:
        return (200, {}) if self.stored.pop(place, None) else (404, {"message": "not found"})


def _merge(found: Object, change: Object) -> None:
    """A JSON merge patch (RFC 7386)."""
    for key, value in change.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, dict) and isinstance(found.get(key), dict):
            _merge(found[key], value)
        else:
            found[key] = value
