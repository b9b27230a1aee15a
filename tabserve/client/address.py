"""The address of a service, in the forms in which people write it."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from tabserve.client.errors import ServiceError

_PORTS = {"http": 80, "https": 443, "grpc": 80, "grpcs": 443}


class Address(NamedTuple):
    """Where a service is. scheme: http, https, grpc or grpcs. prefix: what its paths begin with."""

    scheme: str
    host: str
    port: int
    prefix: str

    @property
    def secure(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme in ("https", "grpcs")

    @property
    def authority(self) -> str:
        """Host and port, with the brackets of an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(url: str) -> Address:
    """The address in a URL; without a scheme it is http. Raises ServiceError."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ServiceError(f"expected http, https, grpc or grpcs://HOST:PORT, got {url!r}: {error}") from None
    if parts.scheme not in _PORTS or not host or parts.query or parts.fragment:
        raise ServiceError(f"expected http, https, grpc or grpcs://HOST:PORT, got {url!r}")
    return Address(parts.scheme, host, port or _PORTS[parts.scheme], parts.path.rstrip("/"))
