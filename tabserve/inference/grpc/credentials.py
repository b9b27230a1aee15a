"""TLS of gRPC, whose certificates may change while it serves."""

from __future__ import annotations

from typing import Any

from tabserve.inference.grpc import tuning  # noqa: F401 - before grpc

# isort: split
import grpc

from tabserve.inference.tls import Identity, Reread


def credentials(identity: Reread[Identity]) -> grpc.ServerCredentials:
    """A listener's TLS; every handshake is by the files of its time."""
    last = identity.current()

    def changed() -> Any:
        nonlocal last
        now = identity.current()
        if now is last:
            return None
        last = now
        return _configuration(now)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(last), changed, require_client_authentication=last.authorities is not None
    )


def _configuration(identity: Identity) -> Any:
    pairs = [(identity.key, identity.certificates)]
    return grpc.ssl_server_certificate_configuration(pairs, root_certificates=identity.authorities)
