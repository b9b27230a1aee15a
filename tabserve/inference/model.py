"""What the server serves: one model, its readiness and its two ways of being asked."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Protocol

import msgspec

from tabserve.inference.bounds import Bounds
from tabserve.inference.errors import DeadlineExceeded
from tabserve.inference.tensors import InferRequest, InferResponse, ModelMetadata

PREDICTOR_RELEASE = "tabserve-predictor-release"
TRANSFORMER_RELEASE = "tabserve-transformer-release"
"""Headers of every answer: which release of each service it comes from."""


class Context(msgspec.Struct):
    """What comes with a request besides its tensors.

    deadline: time.monotonic() seconds; infinite where the client named none. What the model waits for, it waits for no
        longer (`Deadlines.in_time`), and raises DeadlineExceeded then.
    trace: headers to hand on unchanged (W3C `traceparent`, `tracestate`, and `x-request-id`).
    alone: whether no other request comes together with this one, so that a batch has nothing to wait for.
    response_headers: filled by the model, sent as HTTP headers or gRPC trailing metadata.
    When the client goes away, what is awaited for its answer is cancelled.
    """

    deadline: float = math.inf
    trace: Mapping[str, str] = {}
    alone: bool = False
    response_headers: dict[str, str] = msgspec.field(default_factory=dict)

    def remaining(self) -> float:
        """Seconds left; raises DeadlineExceeded when none are."""
        if self.deadline == math.inf:
            return math.inf
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded("the deadline passed before the request was answered")
        return left


class Model(Protocol):
    """A model behind the protocol. All methods run on the event loop, but `ready`, which any thread may ask."""

    @property
    def metadata(self) -> ModelMetadata:
        """Name, versions, and every tensor."""

    @property
    def bounds(self) -> Bounds:
        """How much a request can hold."""

    @property
    def ready(self) -> bool:
        """Whether a request sent now would be predicted."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of every answer, the release among them."""

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        """V2: tensors to tensors. Raises an InferenceError."""

    async def predict(self, body: bytes, context: Context) -> bytes:
        """V1 `:predict`: a JSON body to a JSON body. Raises an InferenceError."""

    async def start(self) -> None:
        """Begin what the model does in the background; called once, before the first request."""

    async def stop(self) -> None:
        """End it; called once, after the last request."""
