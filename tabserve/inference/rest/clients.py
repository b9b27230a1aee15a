"""What the connections of one server share, and how many there may be."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Protocol

from tabserve.inference import memory
from tabserve.inference.admission import Admission
from tabserve.inference.memory import Budget
from tabserve.inference.rest.answers import Load
from tabserve.inference.rest.application import Application
from tabserve.inference.settings import ServerSettings

SWEEP_SECONDS = 1.0
LOG_SECONDS = 60.0
"""That there are too many connections is logged no more often."""

logger = logging.getLogger(__name__)


class Client(Protocol):
    """A connection."""

    @property
    def busy(self) -> bool:
        """Whether it has asked for what is not answered."""

    def time_out(self) -> None:
        """End it where it takes too long."""

    def shutdown(self) -> None:
        """End it as soon as what is under way is answered."""

    def close(self) -> None:
        """End it now."""

    def abort(self) -> None:
        """End it now, whatever is left unsaid."""


class Clients:
    """All connections. Past `max_connections`, the one that has waited the longest for its client makes room."""

    def __init__(
        self, application: Application, admission: Admission, budget: Budget, settings: ServerSettings
    ) -> None:
        self.application = application
        self.admission = admission
        self.budget = budget
        self.settings = settings
        self.connections: dict[Client, None] = {}
        self.load = Load()
        self.now = asyncio.get_running_loop().time
        self._logged = -math.inf

    def join(self, client: Client) -> None:
        """One has connected; it or another one is closed where they are too many."""
        self.connections[client] = None
        if len(self.connections) > self.settings.max_connections:
            self._make_room()

    def leave(self, client: Client) -> None:
        """One has gone."""
        self.connections.pop(client, None)

    def heard(self, client: Client) -> None:
        """All that it asked is answered. Which was heard last matters where there are many."""
        if len(self.connections) > self.settings.max_connections // 2 and client in self.connections:
            self.connections[client] = self.connections.pop(client)

    def _make_room(self) -> None:
        longest = next(client for client in self.connections if not client.busy)
        self.leave(longest)
        longest.close()
        if self.now() - self._logged >= LOG_SECONDS:
            self._logged = self.now()
            logger.warning(
                "over %d connections: those that have been idle the longest are closed", len(self.connections)
            )

    async def sweep(self) -> None:
        """Forever end connections whose request has been coming for too long, and read those left unread for long."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.admission.resume_late()
            for connection in list(self.connections):
                connection.time_out()
            if self.budget.rested():
                await asyncio.to_thread(memory.trim)
