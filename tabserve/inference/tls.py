"""TLS from files, which are read again when they change."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from tabserve.inference.logs import limited
from tabserve.inference.settings import ServerSettings

HANDSHAKE_SECONDS = 10.0
"""How long a client may take to shake hands."""

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Identity(NamedTuple):
    """A server's TLS: REST's context, and for gRPC the key, its certificates and the authorities of clients, as PEM."""

    context: ssl.SSLContext
    key: bytes
    certificates: bytes
    authorities: bytes | None


class Reread(Generic[T]):
    """What is made of some files, and made again when these have changed and are whole.

    make: raises OSError (ssl.SSLError is one) if the files do not fit each other. It may be asked for in any thread.
    """

    def __init__(self, files: Sequence[str], make: Callable[[], T]) -> None:
        self._files = tuple(Path(file) for file in files if file)
        self._make = make
        self._lock = threading.Lock()
        self._stamp = self._stamped()
        self._made = make()

    def current(self) -> T:
        """What the files say now, or what they said when they were whole."""
        with self._lock:
            try:
                stamp = self._stamped()
                if stamp != self._stamp:
                    self._made = self._make()
                    self._stamp = stamp
                    self._tell(logging.INFO, "certificate_read", "is read again")
            except OSError as error:
                self._tell(logging.ERROR, "certificate_unfit", f"is not used, but the one before: {error}")
            return self._made

    def _stamped(self) -> list[tuple[int, int, int]]:
        return [(found.st_ino, found.st_mtime_ns, found.st_size) for found in (file.stat() for file in self._files)]

    def _tell(self, level: int, event: str, what: str) -> None:
        first = str(self._files[0])
        limited.tell(logger, level, event, f"the certificate in {first} {what}", cause=first, file=first)


def server_context(settings: ServerSettings) -> ssl.SSLContext:
    """What the settings say about TLS with clients.

    Nothing is resumed from an earlier connection, so that every client is verified by the files of now.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    if settings.tls_client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(settings.tls_client_ca)
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    return context


def client_context(authority: str, certificate: str, key: str) -> ssl.SSLContext:
    """TLS to a server whose certificate this authority signed; with a certificate of our own if there is one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(authority)
    if certificate:
        context.load_cert_chain(certificate, key, password="")
    return context


def of_server(settings: ServerSettings) -> Reread[Identity]:
    """The server's TLS. Raises ValueError if the files are no certificate and key that fit."""
    files = (settings.tls_cert, settings.tls_key, settings.tls_client_ca)

    def read() -> Identity:
        context = server_context(settings)  # gRPC would notice only at a handshake that they do not fit
        authorities = Path(files[2]).read_bytes() if files[2] else None
        return Identity(context, Path(files[1]).read_bytes(), Path(files[0]).read_bytes(), authorities)

    try:
        return Reread(files, read)
    except OSError as error:
        named = f"{files[0]} and {files[1]}"
        raise ValueError(f"tls_cert, tls_key: expected a certificate and its key in {named}, got {error}") from None


def of_client(authority: str, certificate: str, key: str) -> Reread[ssl.SSLContext]:
    """A client's TLS. Raises ValueError if the files are no authority, certificate and key."""
    try:
        return Reread((authority, certificate, key), lambda: client_context(authority, certificate, key))
    except OSError as error:
        raise ValueError(f"predictor_ca: expected certificates in {authority}, got {error}") from None
