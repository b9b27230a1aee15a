"""Limit the number of one server's connections, and hold what they share."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from tabserve.inference import memory
from tabserve.inference.admission import Admission
from tabserve.inference.logs import limited
from tabserve.inference.memory import Budget
from tabserve.inference.rest.answers import Load
from tabserve.inference.rest.application import Application
from tabserve.inference.settings import ServerSettings

SWEEP_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Client(Protocol):
    """A connection."""

    @property
    def busy(self) -> bool:
        """Whether the client has an unanswered request."""

    def time_out(self) -> None:
        """End the connection if it takes too long."""

    def shutdown(self) -> None:
        """End the connection as soon as requests under way are answered."""

    def close(self) -> None:
        """End the connection now."""

    def abort(self) -> None:
        """End the connection now, without sending anything more."""


class Clients:
    """All connections. Beyond `max_connections`, the one that has waited the longest for its client makes room.

    limit: what their number comes from, for the log: `max_connections`, `memory` or `descriptors`.
    """

    def __init__(
        self,
        application: Application,
        admission: Admission,
        budget: Budget,
        settings: ServerSettings,
        limit: str = "max_connections",
    ) -> None:
        self._limit = limit
        self.application = application
        self.admission = admission
        self.budget = budget
        self.settings = settings
        self.connections: dict[Client, None] = {}
        self.load = Load()
        self.now = asyncio.get_running_loop().time

    def join(self, client: Client) -> None:
        """Add a client that has connected; it or another one is closed if there are too many."""
        self.connections[client] = None
        if len(self.connections) > self.settings.max_connections:
            self._make_room()

    def leave(self, client: Client) -> None:
        """Remove a client that has gone."""
        self.connections.pop(client, None)

    def heard(self, client: Client) -> None:
        """Note that a client's requests are answered, which decides who makes room when there are many."""
        if len(self.connections) > self.settings.max_connections // 2 and client in self.connections:
            self.connections[client] = self.connections.pop(client)

    def _make_room(self) -> None:
        longest = next(client for client in self.connections if not client.busy)
        self.leave(longest)
        longest.close()
        most = self.settings.max_connections
        message = f"over {most} connections: the longest idle ones are closed"
        limited.tell(logger, logging.WARNING, "connections_full", message, most=most, limit=self._limit)

    async def sweep(self) -> None:
        """Keep ending connections whose request takes too long to arrive, and reading those left unread for long."""
        growth = memory.Growth()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.admission.resume_late()
            limited.tell_left_out()
            for connection in list(self.connections):
                connection.time_out()
            if self.budget.idle and growth.calls_for_trim():
                await asyncio.to_thread(memory.trim)
