"""The server under load: where it is, and what it says about itself before the run."""

from __future__ import annotations

import http.client
from typing import Any, Literal, TypeAlias
from urllib.parse import quote, urlsplit

import msgspec

Kind: TypeAlias = Literal["json", "binary", "grpc", "records"]
ASK_SECONDS = 30.0


class TargetError(Exception):
    """The server does not answer, or not by the protocol; the message is for the user."""


class Target(msgspec.Struct, frozen=True):
    """A server of the Open Inference Protocol.

    url: root of REST. grpc: HOST:PORT, needed only for users of kind `grpc`. host: the Host header (and authority)
    behind a gateway, "" for the url's own. kind: the users' kind. timeout: seconds until a request counts as lost.
    """

    url: str
    model: str
    kind: Kind
    grpc: str = ""
    host: str = ""
    timeout: float = 10.0

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of REST."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def tls(self) -> bool:
        """Whether REST is https."""
        return self.url.startswith("https:")

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        return self.host or urlsplit(self.url).netloc

    def path(self, kind: Kind) -> str:
        """The path for requests of a kind."""
        prefix, model = urlsplit(self.url).path.rstrip("/"), quote(self.model, safe="")
        return f"{prefix}/v1/models/{model}:predict" if kind == "records" else f"{prefix}/v2/models/{model}/infer"

    def metadata(self) -> dict[str, Any]:
        """The server's metadata of the model. Raises TargetError."""
        return get(self.url, f"/v2/models/{quote(self.model, safe='')}", self.host)


def get(url: str, path: str, host: str = "") -> dict[str, Any]:
    """A JSON object from a path under the url. Raises TargetError."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=ASK_SECONDS)
    try:
        connection.request("GET", parts.path.rstrip("/") + path, headers={"Host": host} if host else {})
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise TargetError(f"GET {url}{path}: expected status 200, got {response.status}: {body[:200]!r}")
        return msgspec.json.decode(body, type=dict[str, Any])
    except (OSError, http.client.HTTPException) as error:
        raise TargetError(f"no answer from {url}: {error}") from None
    except msgspec.DecodeError as error:
        raise TargetError(f"GET {url}{path}: expected a JSON object: {error}") from None
    finally:
        connection.close()


def only_model(url: str, host: str = "") -> str:
    """The model's name if the server lists only one (V1's list, or the repository index). Raises TargetError."""
    names = get(url, "/v1/models", host).get("models", [])
    if len(names) != 1:
        raise TargetError(f"{url} lists {len(names)} models: say which with --model")
    return str(names[0])
