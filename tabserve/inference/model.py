"""The interface of a served model: its metadata, its readiness, and its answers over V2 and V1."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

import msgspec

from tabserve.inference.arms import SPLIT
from tabserve.inference.bounds import Bounds
from tabserve.inference.errors import DeadlineExceeded
from tabserve.inference.tensors import InferRequest, InferResponse, ModelMetadata

PREDICTOR_RELEASE = "tabserve-predictor-release"
TRANSFORMER_RELEASE = "tabserve-transformer-release"
"""Headers of every answer that name the release of each service."""
ON_ERROR = "x-on-error"
"""The header, or gRPC metadata, that says what becomes of a batch with bad records."""


RECORDED = "recorded"
"""The request's parameter that asks a predictor to say what answered, and to add outputs for the decision record.

Its value names the outputs, comma-separated. They are added if the engine that answers computes them, so that they
change no answer.
"""
ENGINE, VERSIONS = "engine", "versions"
"""The response's parameters that say what answered."""
NATIVE = "tabserve_native"
"""The parameter that asks for the model's own outputs where the setting `compatible` gives others."""


class Context(msgspec.Struct):
    """What comes with a request besides its tensors.

    deadline: time.monotonic() seconds; infinite where the client named none. What the model waits for, it waits for no
        longer (`Deadlines.in_time`), and raises DeadlineExceeded then.
    trace: headers to pass on unchanged (W3C `traceparent`, `tracestate`, `x-request-id`, and those of the arm).
    alone: whether no other request comes together with this one, so that a batch has nothing to wait for.
    on_error: what becomes of a batch with bad records, `fail` or `record`; empty if the header does not say.
    arm: which way it came, `split`, `forced` or `shadow`.
    response_headers: filled by the model, sent as HTTP headers or gRPC trailing metadata.
    When the client goes away, whatever is awaited for its answer is cancelled.
    """

    deadline: float = math.inf
    trace: Mapping[str, str] = {}
    alone: bool = False
    on_error: str = ""
    arm: str = SPLIT
    response_headers: dict[str, str] = msgspec.field(default_factory=dict)

    def remaining(self) -> float:
        """Seconds until the deadline. Raises DeadlineExceeded if it has passed."""
        if self.deadline == math.inf:
            return math.inf
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded("the deadline passed before the request was answered")
        return left


class Background(Protocol):
    """What may work in the background: a model, or a way to one. `start` and `stop` are called once each."""

    @property
    def ready(self) -> bool:
        """Whether a request sent now would be answered."""

    async def start(self) -> None:
        """Start the background work, before the first request."""

    async def stop(self) -> None:
        """End the background work, after the last request."""


class Model(Background, Protocol):
    """A model behind the protocol. All methods run on the event loop, but `ready`, which any thread may ask."""

    @property
    def metadata(self) -> ModelMetadata:
        """The model's name, versions, and every tensor."""

    @property
    def bounds(self) -> Bounds:
        """How much a request can hold."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of every answer, including the release."""

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        """Answer a V2 request, tensors with tensors. Raises an InferenceError."""

    async def predict(self, body: bytes, context: Context) -> bytes:
        """Answer a V1 `:predict`, a JSON body with a JSON body. Raises an InferenceError."""


_Core = TypeVar("_Core", bound=Background)


class Around(Generic[_Core]):
    """Something around a core, which alone works in the background."""

    def __init__(self, core: _Core) -> None:
        self._core = core

    @property
    def ready(self) -> bool:
        """Whether a request sent now would be answered."""
        return self._core.ready

    async def start(self) -> None:
        """Start the core's background work."""
        await self._core.start()

    async def stop(self) -> None:
        """End the core's background work."""
        await self._core.stop()


class AroundModel(Around[Model]):
    """A model around another, with its bounds, headers and metadata."""

    def __init__(self, core: Model) -> None:
        super().__init__(core)
        self.bounds: Bounds = core.bounds
        self.headers: Mapping[str, str] = core.headers
        self.metadata: ModelMetadata = core.metadata
