"""A receiver of spans, OTLP over HTTP, for tests."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Span(NamedTuple):
    """What was received of a span; ids in hex, times in nanoseconds."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    begin: int
    end: int
    attributes: dict[str, str]
    failed: bool


class Receiver:
    """What has been received so far."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1/traces"
        self.spans: list[Span] = []

    def of_trace(self, trace: str) -> dict[str, Span]:
        """The spans of a trace, by name."""
        return {span.name: span for span in [*self.spans] if span.trace == trace}

    def take(self, body: bytes) -> None:
        """Add the spans of a message."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = {each.key: each.value.string_value for each in resource.resource.attributes}["service.name"]
            for scope in resource.scope_spans:
                for each in scope.spans:
                    ids = (each.trace_id.hex(), each.span_id.hex(), each.parent_span_id.hex())
                    times = (each.start_time_unix_nano, each.end_time_unix_nano)
                    attributes = {one.key: str(one.value.string_value) for one in each.attributes}
                    failed = each.status.code == each.status.STATUS_CODE_ERROR
                    self.spans.append(Span(service, each.name, *ids, *times, attributes, failed))


@contextmanager
def receiving() -> Generator[Receiver]:
    """A receiver on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
