"""All addresses of the predictor's name: looked up, probed and chosen from."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from tabserve.inference.errors import DeadlineExceeded, NotReady, PredictorUnavailable
from tabserve.inference.model import PREDICTOR_RELEASE
from tabserve_transformer.predictor_client.address import Address, Endpoint
from tabserve_transformer.predictor_client.connection import Response, ResponseTooLarge
from tabserve_transformer.predictor_client.outages import Outages

_RELEASE_HEADER = PREDICTOR_RELEASE.encode()
READY_SECONDS = 10.0
"""How long the transformer stays ready after the last answer of a predictor of its release."""
PROBE_SECONDS = 1.0
LOOKUP_SECONDS = 5.0
SHORTEST_PAUSE_SECONDS = 0.2

logger = logging.getLogger(__name__)


class ClientOptions(msgspec.Struct, frozen=True):
    """The predictor to call.

    host, port: its name, of which every address is used. release: the only release whose answers are.
    timeout: most seconds for one request, retry included. max_bytes: the largest answer.
    refresh: seconds between looking up the name and asking every address whether it is ready.
    """

    host: str
    port: int
    model_name: str
    release: str
    timeout: float = 10.0
    max_bytes: int = 64 * 2**20
    refresh: float = 2.0


class Addresses:
    """Knows which addresses are of its own release and ready, by asking each of them again and again.

    probe: the request that asks for readiness. `start` begins the background rounds. Until an address answered with the
    own release, and after none did for READY_SECONDS, `ready` is False.
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
        self._rounds: asyncio.Task[None] | None = None

    def __iter__(self) -> Iterator[Address]:
        """Each of them, usable or not."""
        return iter(self._known.values())

    @property
    def ready(self) -> bool:
        """Whether a predictor of its own release answered lately, and none has said otherwise since."""
        lately = time.monotonic() - self._heard_own < READY_SECONDS
        return lately and any(address.own for address in self._known.copy().values())

    async def start(self) -> None:
        """Begin the rounds."""
        self._rounds = asyncio.create_task(self._keep_looking())

    async def stop(self) -> None:
        """End the rounds and close every connection."""
        if self._rounds is not None:
            self._rounds.cancel()
            with suppress(asyncio.CancelledError):
                await self._rounds
        for address in self:
            address.close()

    def look_soon(self) -> None:
        """Begin the next round soon: something has changed."""
        self._wake.set()

    def choose(self, but: Address | None = None) -> Address:
        """The address for a request, the ready one with the fewest under way; `but` only where there is no other.

        Raises NotReady where there are only predictors of other releases, PredictorUnavailable where all are failing or
        none has answered.
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
            key=lambda address: (address is but, not address.ready, address.outstanding),
        )

    def _unavailable(self, failing: bool) -> NotReady | PredictorUnavailable:
        if failing:
            return PredictorUnavailable("the predictor is failing; it is tried again shortly")
        if any(address.own is False for address in self._known.values()):
            return NotReady("the predictor is of another release")
        return PredictorUnavailable("the predictor has not answered yet")

    def is_usable(self, address: Address, response: Response) -> bool:
        """Whether the answer is of its own release; the address is remembered by it."""
        release = response.headers.get(_RELEASE_HEADER)
        if release is None and response.status != 200:
            return True  # an error of what stands between, a proxy or a mesh: it is of no release
        if release != self._release and address.own is not False:
            logger.warning("%s is a predictor of another release and is not used", address.endpoint)
        address.own = release == self._release
        return address.own

    def heed(self, address: Address, response: Response) -> None:
        """Take what an answer says beside its tensors: that a predictor lives, or that it is about to end."""
        if response.headers.get(b"connection") == b"close":
            address.ready = False  # others first, until it says that it is ready again
            self.look_soon()
        elif response.status == 200:
            address.ready = True  # a probe may have come too late where every core was busy
        if response.status == 200:
            self._heard_own = time.monotonic()

    async def look(self) -> None:
        """One round: look up the name, and ask every address for its readiness and release.

        An address that the name has no more is forgotten once another one is known to be of its own release.
        """
        named = await self._look_up()
        for endpoint in named - self._known.keys():
            self._known[endpoint] = Address(endpoint, self._target.max_bytes)
        await asyncio.gather(*(self._probe(address) for address in self))
        if any(self._known[endpoint].own for endpoint in named):
            for endpoint in self._known.keys() - named:
                self._known.pop(endpoint).close()

    async def _look_up(self) -> set[Endpoint]:
        """The addresses of the predictor's name; where it cannot be looked up, those that are known."""
        target = self._target
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            logger.warning("looking up the predictor's name: %s", error)
            return set(self._known)
        return {Endpoint(*where[:2]) for *_, where in found}

    async def _keep_looking(self) -> None:
        while True:
            await self.look()
            self._outages.look(self._known.values(), self._heard_own)
            self._wake.clear()
            await asyncio.sleep(SHORTEST_PAUSE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._target.refresh):
                    await self._wake.wait()

    async def _probe(self, address: Address) -> None:
        try:
            response = await address.exchange(self._request, time.monotonic() + PROBE_SECONDS)
        except (OSError, ResponseTooLarge, DeadlineExceeded):
            address.ready = False
        else:
            address.ready = self.is_usable(address, response) and response.status == 200
        if address.ready:
            self._heard_own = time.monotonic()
        else:
            address.drop_kept()
