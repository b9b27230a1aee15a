"""A receiver of spans, OTLP over HTTP, that counts them."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks.servers import GENERATOR_CORE


class Receiver:
    """What has been received so far."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1/traces"
        self.spans = 0

    def take(self, body: bytes) -> None:
        """Count the spans of a message."""
        scopes = [
            scope for each in ExportTraceServiceRequest.FromString(body).resource_spans for scope in each.scope_spans
        ]
        self.spans += sum(len(scope.spans) for scope in scopes)


@contextmanager
def receiving() -> Generator[Receiver]:
    """A receiver on a free port; its threads run on the generator's core."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            receiver.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *_: object) -> None:
            """Log nothing."""

    def serve() -> None:
        os.sched_setaffinity(0, {GENERATOR_CORE})
        server.serve_forever()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(server.server_address[1])
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
