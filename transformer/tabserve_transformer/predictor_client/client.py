"""The predictor's client: spread over its addresses, bounded in time, and never used across releases."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from contextlib import suppress
from typing import NamedTuple, Protocol

import msgspec

from tabserve.inference.errors import DeadlineExceeded, NotReady, PredictionFailed, PredictorUnavailable
from tabserve.inference.model import PREDICTOR_RELEASE, Context
from tabserve.inference.tensors import InferRequest, InferResponse
from tabserve_transformer.predictor_client.address import Address, Endpoint, Unreached
from tabserve_transformer.predictor_client.breaker import RetryBudget
from tabserve_transformer.predictor_client.codec import Codec, Parts, decode
from tabserve_transformer.predictor_client.connection import ConnectionLost, Response, ResponseTooLarge

_RELEASE_HEADER = PREDICTOR_RELEASE.encode()
READY_SECONDS = 10.0
"""How long the transformer stays ready after the last answer of a predictor of its release."""
PROBE_SECONDS = 1.0
LOOKUP_SECONDS = 5.0
SHORTEST_PAUSE_SECONDS = 0.2

logger = logging.getLogger(__name__)


class RemotePredictor(Protocol):
    """What the transformer needs of a predictor."""

    @property
    def ready(self) -> bool:
        """Whether a request sent now would be answered."""

    async def start(self) -> None:
        """Begin what runs in the background."""

    async def stop(self) -> None:
        """End it."""

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        """Tensors to tensors. Raises an InferenceError."""


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


class _Limit(NamedTuple):
    """Until when, in time.monotonic(), an answer is waited for.

    ours: whether that is the transformer's own timeout. A tighter deadline of the client's says nothing about the
    predictor, and must not open the breaker for others.
    """

    deadline: float
    ours: bool

    @classmethod
    def of(cls, context: Context, timeout: float) -> _Limit:
        left = context.remaining()
        return cls(time.monotonic() + min(left, timeout), timeout <= left)


class PredictorClient:
    """Calls the predictor over V2 REST.

    A request goes to the ready address with the fewest under way. It is sent a second time, to another address where
    there is one, only if no predictor can have started it and the retry budget allows. `start` begins the background
    rounds that look up the name and ask every address for its readiness and release; until one answered with the own
    release, and after none did for READY_SECONDS, `ready` is False.
    """

    def __init__(self, target: ClientOptions) -> None:
        self._target = target
        self._release = target.release.encode()
        self._codec = Codec(target.host, target.model_name)
        self._budget = RetryBudget()
        self._addresses: dict[Endpoint, Address] = {}
        self._turn = 0
        self._heard_own = float("-inf")
        self._wake = asyncio.Event()
        self._rounds: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether a predictor of its own release answered lately, and none has said otherwise since."""
        lately = time.monotonic() - self._heard_own < READY_SECONDS
        return lately and any(address.own for address in self._addresses.copy().values())

    @property
    def addresses(self) -> tuple[Address, ...]:
        """All addresses of the predictor's name, usable or not."""
        return tuple(self._addresses.values())

    async def start(self) -> None:
        """Begin the rounds."""
        self._rounds = asyncio.create_task(self._keep_looking())

    async def stop(self) -> None:
        """End the rounds and close every connection."""
        if self._rounds is not None:
            self._rounds.cancel()
            with suppress(asyncio.CancelledError):
                await self._rounds
        for address in self._addresses.values():
            address.close()

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        """The predictor's answer.

        Raises what the predictor answered (4xx, 503, 504), NotReady where there are only predictors of other releases,
        PredictorUnavailable where none can be reached, DeadlineExceeded, and PredictionFailed for the rest.
        """
        limit = _Limit.of(context, self._target.timeout)
        parts = self._codec.encode(request, context.trace)
        self._budget.earn()
        address = self._choose()
        try:
            return decode(await self._attempt(address, parts, limit))
        except Unreached as error:
            self._wake.set()
            if not self._budget.spend():
                raise PredictorUnavailable("the predictor cannot be reached") from error
        try:
            return decode(await self._attempt(self._choose(but=address), parts, limit))
        except Unreached as error:
            raise PredictorUnavailable("the predictor cannot be reached") from error

    async def look(self) -> None:
        """One round: look up the name, and ask every address for its readiness and release.

        An address that the name has no more is forgotten once another one is known to be of its own release.
        """
        named = await self._look_up()
        for endpoint in named - self._addresses.keys():
            self._addresses[endpoint] = Address(endpoint, self._target.max_bytes)
        await asyncio.gather(*(self._probe(address) for address in self._addresses.values()))
        if any(self._addresses[endpoint].own for endpoint in named):
            for endpoint in self._addresses.keys() - named:
                self._addresses.pop(endpoint).close()

    async def _look_up(self) -> set[Endpoint]:
        """The addresses of the predictor's name; where it cannot be looked up, those that are known."""
        target = self._target
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            logger.warning("looking up the predictor's name: %s", error)
            return set(self._addresses)
        return {Endpoint(*where[:2]) for *_, where in found}

    async def _keep_looking(self) -> None:
        while True:
            await self.look()
            self._wake.clear()
            await asyncio.sleep(SHORTEST_PAUSE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._target.refresh):
                    await self._wake.wait()

    async def _probe(self, address: Address) -> None:
        try:
            response = await address.exchange(self._codec.ready, time.monotonic() + PROBE_SECONDS)
        except (OSError, ResponseTooLarge, DeadlineExceeded):
            address.ready = False
        else:
            address.ready = self._is_usable(address, response) and response.status == 200
        if address.ready:
            self._heard_own = time.monotonic()
        else:
            address.drop_kept()

    def _is_usable(self, address: Address, response: Response) -> bool:
        """Whether the answer is of its own release; the address is remembered by it."""
        release = response.headers.get(_RELEASE_HEADER)
        if release is None and response.status != 200:
            return True  # an error of what stands between, a proxy or a mesh: it is of no release
        if release != self._release and address.own is not False:
            logger.warning("%s is a predictor of another release and is not used", address.endpoint)
        address.own = release == self._release
        return address.own

    def _choose(self, but: Address | None = None) -> Address:
        """The address for a request; `but` only where there is no other."""
        now = time.monotonic()
        own = [address for address in self._addresses.values() if address.own]
        allowed = [address for address in own if address.breaker.allows(now)]
        if not allowed:
            self._wake.set()
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
        if any(address.own is False for address in self._addresses.values()):
            return NotReady("the predictor is of another release")
        return PredictorUnavailable("the predictor has not answered yet")

    async def _attempt(self, address: Address, parts: Parts, limit: _Limit) -> Response:
        now = time.monotonic()
        breaker = address.breaker
        breaker.enter(now)
        try:
            response = await address.exchange(self._codec.with_timeout(parts, limit.deadline - now), limit.deadline)
        except Unreached:
            breaker.failed(now)
            raise
        except DeadlineExceeded as error:
            if limit.ours:
                breaker.failed(now)
            raise DeadlineExceeded("the predictor did not answer in time") from error
        except ConnectionLost as error:
            breaker.failed(now)
            raise PredictorUnavailable("the connection to the predictor was lost") from error
        except ResponseTooLarge as error:
            raise PredictionFailed(f"the predictor's answer is over {self._target.max_bytes} bytes") from error
        breaker.succeeded()
        if not self._is_usable(address, response):
            raise NotReady("the predictor is of another release")
        self._heed(address, response)
        return response

    def _heed(self, address: Address, response: Response) -> None:
        """Take what an answer says beside its tensors: that a predictor lives, or that it is about to end."""
        if response.headers.get(b"connection") == b"close":
            address.ready = False  # others first, until it says that it is ready again
            self._wake.set()
        elif response.status == 200:
            address.ready = True  # a probe may have come too late where every core was busy
        if response.status == 200:
            self._heard_own = time.monotonic()
