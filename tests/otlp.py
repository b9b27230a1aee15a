"""A receiver of spans, OTLP over HTTP, for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
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

    def __init__(self) -> None:
        self.url = ""
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
    receiver = Receiver()
    with posted(receiver.take) as receiver.url:
        yield receiver


@contextmanager
def posted(take: Callable[[bytes], None], begin: Callable[[], None] = lambda: None) -> Generator[str]:
    """The URL of a server on a free port, which hands over the bodies that it gets. begin: called in its thread."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *_: object) -> None:
            """Log nothing."""

    def serve() -> None:
        begin()
        server.serve_forever()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
        finally:
            server.shutdown()
            thread.join()
