"""Calls of the predictor within spans."""

from __future__ import annotations

from tabserve.inference.model import Around, Context
from tabserve.inference.tensors import InferRequest, InferResponse
from tabserve.inference.tracing import Spans
from tabserve_transformer.predictor_client.client import RemotePredictor


class TracedPredictor(Around[RemotePredictor]):
    """A predictor each of whose calls is a span; implements RemotePredictor."""

    def __init__(self, core: RemotePredictor, spans: Spans) -> None:
        super().__init__(core)
        self._spans = spans

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        """Send tensors, and return the predictor's. Raises an InferenceError."""
        return await self._spans.around("predictor", {}, context, lambda ours: self._core.infer(request, ours))
