"""The predictor's client, which waits for a limited time, and never mixes releases."""

from __future__ import annotations

import logging
import time
from typing import NamedTuple, Protocol

from tabserve.inference.errors import DeadlineExceeded, NotReady, PredictionFailed, PredictorUnavailable
from tabserve.inference.logs import limited
from tabserve.inference.model import Background, Context
from tabserve.inference.tensors import InferRequest, InferResponse
from tabserve_transformer.predictor_client.address import Address, Unreached
from tabserve_transformer.predictor_client.addresses import Addresses, ClientOptions
from tabserve_transformer.predictor_client.breaker import RetryBudget
from tabserve_transformer.predictor_client.codec import Codec, Parts, decode
from tabserve_transformer.predictor_client.connection import ConnectionLost, Response, ResponseTooLarge

logger = logging.getLogger(__name__)


class RemotePredictor(Background, Protocol):
    """What the transformer needs from a predictor."""

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        """Send tensors, and return the predictor's. Raises an InferenceError."""


class _Limit(NamedTuple):
    """The deadline, in time.monotonic(), for an answer.

    ours: whether it is the transformer's own timeout. A tighter deadline from the client says nothing about the
    predictor, and must not open the breaker for others, unless probes of the predictor are not answered either.
    """

    deadline: float
    ours: bool

    @classmethod
    def of(cls, context: Context, timeout: float) -> _Limit:
        left = context.remaining()
        return cls(time.monotonic() + min(left, timeout), timeout <= left)


class PredictorClient:
    """Calls the predictor over V2 REST.

    A request is sent a second time, if possible to another address, only if no predictor can have started it and the
    retry budget allows.
    """

    def __init__(self, target: ClientOptions) -> None:
        self._target = target
        self._codec = Codec(target.host, target.model_name)
        self._budget = RetryBudget()
        self.addresses = Addresses(target, self._codec.ready)

    @property
    def ready(self) -> bool:
        """Whether a predictor of the same release has answered recently."""
        return self.addresses.ready

    async def start(self) -> None:
        """Start looking for the predictor."""
        await self.addresses.start()

    async def stop(self) -> None:
        """Stop looking for the predictor, and close its connections."""
        await self.addresses.stop()

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        """The predictor's answer.

        Raises what the predictor answered (4xx, 503, 504), NotReady if all predictors are of other releases,
        PredictorUnavailable if none can be reached, DeadlineExceeded, and PredictionFailed for everything else.
        """
        limit = _Limit.of(context, self._target.timeout)
        parts = self._codec.encode(request, context.trace)
        self._budget.earn()
        address = self.addresses.choose()
        try:
            return decode(await self._attempt(address, parts, limit))
        except Unreached as error:
            self.addresses.look_soon()
            if not self._budget.spend():
                raise PredictorUnavailable("the predictor cannot be reached") from error
        try:
            return decode(await self._attempt(self.addresses.choose(but=address), parts, limit))
        except Unreached as error:
            raise PredictorUnavailable("the predictor cannot be reached") from error

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
            if limit.ours or not address.ready:
                breaker.failed(now)
            self._tell(address, "predictor_slow", "did not answer a request in time")
            raise DeadlineExceeded("the predictor did not answer in time") from error
        except ConnectionLost as error:
            breaker.failed(now)
            self._tell(address, "predictor_cut", "ended a connection instead of answering a request")
            raise PredictorUnavailable("the connection to the predictor was lost") from error
        except ResponseTooLarge as error:
            raise PredictionFailed(f"the predictor's answer is over {self._target.max_bytes} bytes") from error
        breaker.succeeded()
        if not self.addresses.is_usable(address, response):
            raise NotReady("the predictor is of another release")
        self.addresses.heed(address, response)
        return response

    def _tell(self, address: Address, event: str, what: str) -> None:
        where = str(address.endpoint)
        limited.tell(
            logger, logging.WARNING, event, f"address {where} of the predictor {what}", cause=where, address=where
        )
