"""TLS of gRPC, whose certificates may change while it serves."""

from __future__ import annotations

from typing import Any, TypeAlias

from tabserve.inference.grpc import tuning  # noqa: F401 - before grpc

# isort: split
import grpc

from tabserve.inference.tls import Reread

Files: TypeAlias = tuple[bytes, bytes, bytes | None]
"""A private key, its certificates, and the authorities of clients, as PEM."""


def credentials(files: Reread[Files]) -> grpc.ServerCredentials:
    """A listener's TLS; every handshake is by the files of its time."""
    last = files.current()

    def changed() -> Any:
        nonlocal last
        now = files.current()
        if now is last:
            return None
        last = now
        return _configuration(now)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(last), changed, require_client_authentication=last[2] is not None
    )


def _configuration(files: Files) -> Any:
    key, certificates, authorities = files
    return grpc.ssl_server_certificate_configuration([(key, certificates)], root_certificates=authorities)
