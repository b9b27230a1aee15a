"""A small blocking client of a transformer: records in, decisions out."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

TIMEOUT_SECONDS = 30.0


class ServiceError(Exception):
    """The service's answer was an error, or there was none; the message is for the user."""


class Client:
    """Asks one transformer. url: its root, such as http://127.0.0.1:8080. host: the Host header, behind a gateway."""

    def __init__(self, url: str, host: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._headers = {"content-type": "application/json", **({"host": host} if host else {})}

    def model_name(self) -> str:
        """The name of the model that the transformer serves. Raises ServiceError."""
        names: list[str] = self.get("/v1/models")["models"]
        return names[0]

    def ready(self) -> bool:
        """Whether the transformer answers that it is ready."""
        try:
            return bool(self.get("/v2/health/ready").get("ready"))
        except ServiceError:
            return False

    def get(self, path: str) -> dict[str, Any]:
        """The JSON answer to a GET of a path. Raises ServiceError."""
        return self._answer(urllib.request.Request(self._url + path, headers=self._headers))

    def decide(self, model: str, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The decision on each record. Raises ServiceError."""
        body = msgspec.json.encode({"instances": records})
        request = urllib.request.Request(f"{self._url}/v1/models/{model}:predict", body, self._headers)
        decisions: list[dict[str, Any]] = self._answer(request)["predictions"]
        return decisions

    def _answer(self, request: urllib.request.Request) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
                return _object(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise ServiceError(f"{error.code}: {_object(error.read()).get('error', error.reason)}") from None
        except OSError as error:
            raise ServiceError(f"no answer from {self._url}: {error}") from None


def _object(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}
