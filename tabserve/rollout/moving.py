"""Bring the gate's route to what it should be, a step at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from tabserve.rollout import route
from tabserve.rollout.kube import ROUTES, Api, Object
from tabserve.rollout.seen import Route
from tabserve.rollout.settings import Settings

WARM_SECONDS = 5.0
"""How long no request follows a route after the gateway has accepted it, and before it goes; on a busy machine 2 s were
too few."""


class Mover:
    """Moves the route of a gate. owner: name and uid of the gate's pod, with which the route goes. now: in seconds."""

    def __init__(
        self, api: Api, settings: Settings, owner: Mapping[str, str], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._api, self._settings, self._owner, self._now = api, settings, owner, now
        self._found: Object | None = None
        self._accepted: float | None = None

    def look(self) -> None:
        """Look at the route. Raises Away, Refused."""
        self._found = self._api.get(ROUTES, self._settings.owned)

    @property
    def followed(self) -> Route | None:
        """What the gateway followed at the last look; None while it has not taken over the newest route."""
        return route.followed(self._found) if self._found else None

    def move(self, wanted: Route | None) -> bool:
        """Bring what was there at the last look a step nearer; returns whether it was that. Raises Away, Refused."""
        name, found = self._settings.owned, self._found
        if found is None or not route.warming(found):
            self._accepted = None
        if wanted is None:
            return found is None or self._remove(found)
        if found is None:
            self._api.create(ROUTES, route.made(self._settings, wanted, self._owner, warm=True))
            return False
        warm = route.warming(found) and not self._is_warm(found)
        if not route.shows(found, self._settings, wanted, self._owner["uid"], warm=warm):
            self._api.patch(ROUTES, name, route.made(self._settings, wanted, self._owner, warm=warm))
            return False
        return not warm

    def _remove(self, found: Object) -> bool:
        """Let no request follow the route, and delete it when the gateway has known that for long enough."""
        if not route.warming(found):
            self._api.patch(ROUTES, self._settings.owned, route.closed(found))
            return False
        return self._is_warm(found) and not self._api.delete(ROUTES, self._settings.owned)

    def _is_warm(self, found: Object) -> bool:
        """Whether the gateway has had a route that nothing follows for long enough."""
        if not route.accepted(found):
            return False
        if self._accepted is None:
            self._accepted = self._now()
        return self._now() - self._accepted >= WARM_SECONDS
