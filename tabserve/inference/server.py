"""Runs one model behind REST and gRPC in one process, from start to drain."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
from contextlib import suppress
from functools import partial

import msgspec
import uvloop

from tabserve.inference import admin, memory, tls
from tabserve.inference.admission import Admission
from tabserve.inference.grpc.reading import Messages
from tabserve.inference.grpc.service import GrpcServer, Servicer
from tabserve.inference.logs import tell
from tabserve.inference.memory import Budget
from tabserve.inference.metrics import Gauge, Metrics
from tabserve.inference.model import Model
from tabserve.inference.rest.application import Application
from tabserve.inference.rest.clients import Clients
from tabserve.inference.rest.connection import Connection
from tabserve.inference.rest.cross_origin import CrossOriginApplication
from tabserve.inference.rest.handshakes import Handshakes
from tabserve.inference.rest.home import Home
from tabserve.inference.rest.pages import health_pages, metrics_pages
from tabserve.inference.settings import LARGEST_BODY_BYTES, ServerSettings

BACKLOG = 2048
MOST_CONNECTIONS = 10_000
CONNECTIONS_PART = 4
"""Which part of the memory that loading has left is for connections, with headers and small bodies: a quarter."""
TLS_BYTES = 288 * 2**10
"""What a connection with TLS takes besides: a buffer of 256 KiB, once it is full, and its keys (39 KiB when idle)."""
RESERVED_FILES = 96
"""Open files that are not connections."""
GRACE_SECONDS = 1.0
"""How long after the drain answers may be under way; then their connections end without them."""
POLL_SECONDS = 0.05
QUIET_SECONDS = 1.0
HEALTH_SECONDS = 0.5

logger = logging.getLogger(__name__)


def run(model: Model, settings: ServerSettings, metrics: Metrics, home: Home | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain. home: the page for browsers. Raises OSError if a port is taken."""
    uvloop.run(_serve(model, settings, metrics, home))


async def _serve(model: Model, settings: ServerSettings, metrics: Metrics, home: Home | None) -> None:
    # It is made inside the loop, because grpc.aio binds a server to the current loop.
    await _Service(model, settings, metrics, home).serve()


class _Service:
    def __init__(self, model: Model, settings: ServerSettings, metrics: Metrics, home: Home | None) -> None:
        memory.map_large()
        most_memory = settings.memory_limit_bytes or memory.limit_bytes()
        capacity = memory.capacity(most_memory)
        limits = most_connections(settings, capacity)
        settings = within_memory(settings, capacity, min(limits.values()))
        self._model = model
        self._settings = settings
        self._drain_seconds: float | None = None
        self._stop = asyncio.Event()
        self._heart = admin.Heartbeat()
        self._admission = Admission(settings.max_concurrency, metrics)
        budget = Budget(capacity, metrics)
        metrics.add(Gauge("tabserve_memory_limit_bytes", "Memory that the process may have", lambda: most_memory))
        most = settings.max_body_bytes
        kind = partial(CrossOriginApplication, settings.origins) if settings.origins else Application
        at_rest = not settings.admin_port
        application = kind(model, self.ready, self._admission, metrics, most, shows_metrics=at_rest, home=home)
        self._clients = Clients(
            application, self._admission, budget, settings, limit=min(limits, key=limits.__getitem__)
        )
        servicer = Servicer(model, self.ready, self._admission, Messages(budget, most), metrics)
        self._tls = tls.of_server(settings) if settings.tls_cert else None
        self._grpc = GrpcServer(servicer, settings, self._tls) if settings.grpc_port else None
        self._admin_pages = {
            **health_pages(model.metadata, self.ready, is_live=lambda: self._heart.live),
            **metrics_pages(metrics.page),
        }

    def ready(self) -> bool:
        """Whether new requests should be sent to this server."""
        return self._model.ready and not self._stop.is_set()

    async def serve(self) -> None:
        """Serve, wait for a signal, drain."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._begin_stop, settings.drain_seconds)
        loop.add_signal_handler(signal.SIGINT, self._begin_stop, 0.0)
        listener = listen(settings.host, settings.http_port)
        admin_listener = listen(settings.host, settings.admin_port) if settings.admin_port else None
        if self._grpc:
            listen(settings.host, settings.grpc_port).close()  # raises if another process would share it
            await self._grpc.start(settings.host, settings.grpc_port)
        await self._model.start()
        memory.settle()
        http = await self._accept(listener)
        background = (self._report_health(), self._clients.sweep(), self._heart.keep_beating())
        tasks = [asyncio.create_task(work) for work in background]
        with admin.answering(admin_listener, self._admin_pages):
            self._tell_start()
            await self._stop.wait()
            await self._drain(http)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._model.stop()
        tell(logger, logging.INFO, "stopped", "stopped")

    async def _accept(self, listener: socket.socket) -> asyncio.Server | Handshakes:
        if self._tls is not None:
            return Handshakes(listener, self._clients, self._tls)
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: Connection(self._clients), sock=listener, backlog=BACKLOG)

    def _tell_start(self) -> None:
        settings, name = self._settings, self._model.metadata.name
        grpc, admin = settings.grpc_port or "none", settings.admin_port or "none"
        message = f"serving {name}: REST on {settings.http_port}, gRPC on {grpc}, admin on {admin}"
        chosen = ("http_port", "grpc_port", "admin_port", "max_connections", "max_body_bytes", "max_concurrency")
        fields = {field: getattr(settings, field) for field in chosen}
        tell(logger, logging.INFO, "serving", message, model=name, release=settings.release, **fields)

    def _begin_stop(self, drain_seconds: float) -> None:
        self._drain_seconds = drain_seconds
        self._stop.set()

    async def _report_health(self) -> None:
        while self._grpc:
            await self._grpc.report_health()
            await asyncio.sleep(HEALTH_SECONDS)

    async def _drain(self, http: asyncio.Server | Handshakes) -> None:
        """Answer requests under way, and those that still come on open connections, then close."""
        seconds = self._drain_seconds or 0.0
        end = self._clients.now() + seconds + GRACE_SECONDS
        tell(logger, logging.INFO, "draining", f"draining for up to {seconds:g} s", seconds=seconds)
        self._clients.load.leaving = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wait_until_quiet()
        http.close()
        stops = [self._grpc.stop(end - self._clients.now())] if self._grpc else []
        await asyncio.gather(self._close_connections(end), *stops)

    async def _wait_until_quiet(self) -> None:
        """Wait until no connection was open for a while: clients may still use addresses that they looked up before."""
        loop = asyncio.get_running_loop()
        quiet_since = loop.time()
        while loop.time() - quiet_since < QUIET_SECONDS:
            await asyncio.sleep(POLL_SECONDS)
            if self._clients.connections:
                quiet_since = loop.time()

    async def _close_connections(self, end: float) -> None:
        connections = self._clients.connections
        for connection in list(connections):
            connection.shutdown()
        while connections and self._clients.now() < end:
            await asyncio.sleep(POLL_SECONDS)
        if connections:
            message = f"closed {len(connections)} connections whose answer was missing or unread"
            tell(logger, logging.ERROR, "connections_cut", message, connections=len(connections))
            for connection in list(connections):
                connection.abort()


def within_memory(settings: ServerSettings, capacity: int, connections: int) -> ServerSettings:
    """The settings, with limits for which the bytes in transit and the allowed open files leave room."""
    return msgspec.structs.replace(
        settings,
        max_body_bytes=min(settings.max_body_bytes or LARGEST_BODY_BYTES, max(capacity, memory.FREE_BYTES)),
        max_connections=max(1, connections),
    )


def most_connections(settings: ServerSettings, capacity: int) -> dict[str, int]:
    """How many connections there may be, by what limits them."""
    left = capacity * memory.PART
    each = settings.max_header_bytes + memory.FREE_BYTES + (TLS_BYTES if settings.tls_cert else 0)
    return {
        "max_connections": settings.max_connections or MOST_CONNECTIONS,
        "memory": left // CONNECTIONS_PART // each,
        "descriptors": (_open_files() - RESERVED_FILES) // 2,
    }


def _open_files() -> int:
    """How many files the process may have open, after raising the limit as far as possible."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, for both IP versions if the host is an IPv6 one. Raises OSError if it is taken."""
    if ":" in host:
        return socket.create_server((host, port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=host == "::")
    return socket.create_server((host, port), backlog=BACKLOG)
