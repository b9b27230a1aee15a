"""Traces of requests through both services, sent over OTLP; off unless `tracing_endpoint` is set.

The transformer begins a trace, or continues that of its caller (W3C `traceparent`). Its span holds that of the call to
the predictor, which holds the predictor's queue and engine. A span never holds a value of a request.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import msgspec

from tabserve import __version__
from tabserve.inference.errors import InferenceError
from tabserve.inference.logs import limited
from tabserve.inference.model import AroundModel, Context, Model
from tabserve.inference.settings import ServerSettings
from tabserve.inference.tensors import InferRequest, InferResponse

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Tracer

EXPORT_SECONDS = 2.0
"""How long an attempt to send spans may take; at a service's end, what is unsent is tried for as long."""

logger = logging.getLogger(__name__)

Attributes: TypeAlias = Mapping[str, str | int | float]
T = TypeVar("T")


class Spans:
    """Makes spans whose parents are named by the headers of requests."""

    def __init__(self, tracer: Tracer) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, get_current_span, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = tracer
        self._parent, self._within = get_current_span, set_span_in_context
        self._headers = TraceContextTextMapPropagator()
        self._kinds = {"transformer": SpanKind.SERVER, "predictor": SpanKind.CLIENT}
        self._failed = Status(StatusCode.ERROR)

    async def around(
        self, name: str, attributes: Attributes, context: Context, work: Callable[[Context], Awaitable[T]]
    ) -> T:
        """Do work within a span, whose context the work's requests carry on. Raises what the work raises."""
        parent = self._headers.extract(context.trace)
        span = self._tracer.start_span(name, parent, self._kinds[name], attributes)
        trace = dict(context.trace)
        self._headers.inject(trace, self._within(span))
        try:
            return await work(msgspec.structs.replace(context, trace=trace))
        except InferenceError as error:
            span.set_attribute("error.type", type(error).__name__)
            if error.http_status >= 500:
                span.set_status(self._failed)
            raise
        finally:
            span.end()

    def called(self, trace: Mapping[str, str], since: float, started: float, seconds: float, engine: str) -> None:
        """Make the spans of a request's wait for an engine, and of the call, as time.perf_counter() had them.

        They continue a trace that is recorded, and begin none.
        """
        parent = self._headers.extract(trace)
        if not self._parent(parent).get_span_context().trace_flags.sampled:
            return
        now = time.time_ns() - time.perf_counter_ns()
        times = [now + int(1e9 * at) for at in (since, started, started + seconds)]
        self._tracer.start_span("queue", parent, start_time=times[0]).end(times[1])
        attributes = {"tabserve.engine": engine}
        self._tracer.start_span("engine", parent, attributes=attributes, start_time=times[1]).end(times[2])


class Traced(AroundModel):
    """A model whose answers are each made within a span; implements tabserve.inference.model.Model."""

    def __init__(self, core: Model, spans: Spans) -> None:
        super().__init__(core)
        self._spans = spans

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        """Answer a V2 request. Raises what the model raises."""
        return await self._spans.around(
            "transformer", self._attributes(context), context, lambda ours: self._core.infer(request, ours)
        )

    async def predict(self, body: bytes, context: Context) -> bytes:
        """Answer a V1 body. Raises what the model raises."""
        return await self._spans.around(
            "transformer", self._attributes(context), context, lambda ours: self._core.predict(body, ours)
        )

    def _attributes(self, context: Context) -> Attributes:
        return {"tabserve.model": self.metadata.name, "tabserve.arm": context.arm}


@contextmanager
def tracing(settings: ServerSettings, service: str) -> Generator[Spans | None]:
    """What makes spans, until they have been sent; None if tracing is off.

    service: `predictor` or `transformer`. Raises ModuleNotFoundError without the extra `tracing`.
    """
    if not settings.tracing_endpoint:
        yield None
        return
    provider = _provider(settings, service)
    try:
        yield Spans(provider.get_tracer("tabserve"))
    finally:
        ending = threading.Thread(target=provider.shutdown, daemon=True)
        ending.start()
        ending.join(EXPORT_SECONDS)


def _provider(settings: ServerSettings, service: str) -> TracerProvider:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    facts = {
        "service.name": f"tabserve-{service}",
        "service.version": __version__,
        "tabserve.release": settings.release,
    }
    sampler = ParentBased(TraceIdRatioBased(settings.tracing_ratio))
    made = TracerProvider(sampler=sampler, resource=Resource.create(facts), shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(_exporter(settings.tracing_endpoint)))
    return made


def _exporter(endpoint: str) -> SpanExporter:
    """What sends spans, and tells of a cause once in ten seconds if it cannot."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SpanExportResult

    class Telling(OTLPSpanExporter):
        """Its own log would have several lines for each attempt."""

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            """Send spans."""
            result = super().export(spans)
            if result is not SpanExportResult.SUCCESS:
                message = f"{len(spans)} spans could not be sent to {endpoint}"
                limited.tell(logger, logging.WARNING, "spans_lost", message, cause=endpoint, spans=len(spans))
            return result

    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    return Telling(endpoint=endpoint, timeout=EXPORT_SECONDS)
