"""Look up, probe and choose from all addresses of the predictor's name."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec

from tabserve.inference.errors import DeadlineExceeded, NotReady, PredictorUnavailable
from tabserve.inference.logs import limited
from tabserve.inference.model import PREDICTOR_RELEASE
from tabserve.inference.tls import Reread
from tabserve_transformer.predictor_client.address import Address, Endpoint
from tabserve_transformer.predictor_client.connection import Response, ResponseTooLarge
from tabserve_transformer.predictor_client.outages import Outages

_RELEASE_HEADER = PREDICTOR_RELEASE.encode()
PROBE_EVERY_SECONDS = 0.5
MOST_MISSED = 3
"""After how many rounds of probes without an answer from a predictor of its release the transformer is not ready.

These are 1.5 s. Rounds are counted, so time in which the transformer itself stood still does not count.
"""
PROBE_SECONDS = 1.0
LOOKUP_SECONDS = 5.0
SHORTEST_PAUSE_SECONDS = 0.2

logger = logging.getLogger(__name__)


class ClientOptions(msgspec.Struct, frozen=True):
    """The predictor to call, and how.

    host, port: its name and port; every address of the name is used. release: the only release whose answers are used.
    timeout: most seconds for one request, retry included. max_bytes: the largest answer.
    refresh: seconds between looking up the name. tls: for its certificate, which must have the host's name.
    """

    host: str
    port: int
    model_name: str
    release: str
    timeout: float = 10.0
    max_bytes: int = 64 * 2**20
    refresh: float = 2.0
    tls: Reread[ssl.SSLContext] | None = None


class Addresses:
    """Knows which addresses are ready and of this transformer's release, by asking each of them again and again.

    probe: the request that asks for readiness. `start` begins the background rounds. `ready` is False until an address
    has answered with this release, and after none has in MOST_MISSED rounds of probes.
    """

    def __init__(self, target: ClientOptions, probe: bytes) -> None:
        self._target = target
        self._request = probe
        self._release = target.release.encode()
        self._known: dict[Endpoint, Address] = {}
        self._turn = 0
        self._heard_own = float("-inf")
        self._wake = asyncio.Event()
        self._outages = Outages(f"{target.host}:{target.port}")
        self._missed = MOST_MISSED
        self._rounds: list[asyncio.Task[None]] = []

    def __iter__(self) -> Iterator[Address]:
        """All addresses, usable or not."""
        return iter(self._known.values())

    @property
    def ready(self) -> bool:
        """Whether a predictor of this release has answered recently, and none has since said that it is not ready."""
        return self._missed < MOST_MISSED and any(address.own for address in self._known.copy().values())

    @property
    def count_ready(self) -> int:
        """How many addresses of this release are ready."""
        return sum(bool(address.own and address.ready) for address in self._known.copy().values())

    async def start(self) -> None:
        """Start the background rounds."""
        self._rounds = [asyncio.create_task(each) for each in (self._keep_looking(), self._keep_probing())]

    async def stop(self) -> None:
        """End the rounds and close every connection."""
        for each in self._rounds:
            each.cancel()
        await asyncio.gather(*self._rounds, return_exceptions=True)
        for address in self:
            address.close()

    def look_soon(self) -> None:
        """Start the next round soon, because something has changed."""
        self._wake.set()

    def choose(self, but: Address | None = None) -> Address:
        """The address for a request, the ready one with the fewest under way; `but` only if there is no other.

        Raises NotReady if all predictors are of other releases, PredictorUnavailable if all are failing or none has
        answered.
        """
        now = time.monotonic()
        own = [address for address in self._known.values() if address.own]
        allowed = [address for address in own if address.breaker.allows(now)]
        if not allowed:
            self.look_soon()
            raise self._unavailable(bool(own))
        if len(allowed) == 1:
            return allowed[0]
        self._turn += 1
        turn = self._turn % len(allowed)
        return min(
            allowed[turn:] + allowed[:turn],
            key=lambda address: (address is but, not address.ready or address.is_silent(now), address.outstanding),
        )

    def _unavailable(self, failing: bool) -> NotReady | PredictorUnavailable:
        if failing:
            return PredictorUnavailable("the predictor is failing; it will be tried again shortly")
        if any(address.own is False for address in self._known.values()):
            return NotReady("the predictor is of another release")
        return PredictorUnavailable("the predictor has not answered yet")

    def is_usable(self, address: Address, response: Response) -> bool:
        """Whether the answer comes from this release; the address keeps the result."""
        release = response.headers.get(_RELEASE_HEADER)
        if release is None and response.status != 200:
            return True  # an error from a proxy or a mesh in between, which has no release
        if release != self._release and address.own is not False:
            where = str(address.endpoint)
            message = f"{where} is a predictor of another release and is not used"
            limited.tell(logger, logging.WARNING, "predictor_foreign", message, cause=where, address=where)
        address.own = release == self._release
        return address.own

    def heed(self, address: Address, response: Response) -> None:
        """Note what an answer says besides its tensors: that a predictor lives, or that it is about to end."""
        if response.headers.get(b"connection") == b"close":
            address.ready = False  # others first, until it says that it is ready again
            self.look_soon()
        elif response.status == 200:
            address.ready = True  # a probe may have come too late because every core was busy
        if response.status == 200:
            self._heard()

    async def look(self) -> None:
        """Run one round: look up the name, and ask every address for its readiness and release.

        An address that the name no longer has is forgotten once another one is known to be of this release.
        """
        named = await self._look_up()
        for endpoint in named - self._known.keys():
            self._known[endpoint] = Address(endpoint, self._target.max_bytes, self._secure)
        await asyncio.gather(*(self._probed(address) for address in self))
        if any(self._known[endpoint].own for endpoint in named):
            for endpoint in self._known.keys() - named:
                self._known.pop(endpoint).close()

    def _secure(self) -> dict[str, Any]:
        """How to connect: what `create_connection` takes for TLS, if it is on."""
        target = self._target
        return {} if target.tls is None else {"ssl": target.tls.current(), "server_hostname": target.host}

    async def _look_up(self) -> set[Endpoint]:
        """The addresses of the predictor's name; if it cannot be looked up, the known ones."""
        target = self._target
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            message = f"looking up {target.host}: {error or 'no answer'}"
            limited.tell(logger, logging.WARNING, "lookup_failed", message, cause=target.host, host=target.host)
            return set(self._known)
        return {Endpoint(*where[:2]) for *_, where in found}

    async def _keep_looking(self) -> None:
        while True:
            await self.look()
            self._wake.clear()
            await asyncio.sleep(SHORTEST_PAUSE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._target.refresh):
                    await self._wake.wait()

    async def _keep_probing(self) -> None:
        """Begin a probe of every address again and again, whether or not others or the name's lookup hang."""
        while True:
            self._missed += 1
            for address in self:
                self._probed(address)
            await asyncio.sleep(PROBE_EVERY_SECONDS)
            self._outages.look(self._known.values(), self._heard_own)

    def _probed(self, address: Address) -> asyncio.Task[None]:
        """The probe of an address that is under way, or a new one."""
        if address.probe is None or address.probe.done():
            address.probe = asyncio.create_task(self._probe(address))
        return address.probe

    async def _probe(self, address: Address) -> None:
        try:
            response = await address.exchange(self._request, time.monotonic() + PROBE_SECONDS)
        except DeadlineExceeded:
            address.ready, address.trouble = False, "hung"
        except (OSError, ResponseTooLarge):
            address.ready, address.trouble = False, "lost"
        else:
            address.ready, address.trouble = self.is_usable(address, response) and response.status == 200, "unready"
        if address.ready:
            self._heard()
        else:
            address.drop_kept()

    def _heard(self) -> None:
        """Note that a predictor of this release has answered."""
        self._missed = 0
        self._heard_own = time.monotonic()
