"""Calls of the predictor within spans."""

from __future__ import annotations

from tabserve.inference.model import Context
from tabserve.inference.tensors import InferRequest, InferResponse
from tabserve.inference.tracing import Spans
from tabserve_transformer.predictor_client.client import RemotePredictor


class TracedPredictor:
    """A predictor each of whose calls is a span; implements RemotePredictor."""

    def __init__(self, core: RemotePredictor, spans: Spans) -> None:
        self._core, self._spans = core, spans

    @property
    def ready(self) -> bool:
        """Whether a request sent now would be answered."""
        return self._core.ready

    async def start(self) -> None:
        """Start the background work."""
        await self._core.start()

    async def stop(self) -> None:
        """End the background work."""
        await self._core.stop()

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        """Send tensors, and return the predictor's. Raises an InferenceError."""
        return await self._spans.around("predictor", {}, context, lambda ours: self._core.infer(request, ours))
