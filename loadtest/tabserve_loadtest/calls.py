"""gRPC calls whose messages are encoded before the run, and not decoded while they are timed."""

from __future__ import annotations

import grpc
from grpc.experimental import gevent as grpc_gevent

from tabserve_loadtest.answers import Answer
from tabserve_loadtest.target import Target

METHOD = "/inference.GRPCInferenceService/ModelInfer"
# What a status means over HTTP; UNAVAILABLE is a refusal only if a server said it, not if none was reached.
_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 413,
    grpc.StatusCode.UNAVAILABLE: 503,
}


def initialize() -> None:
    """Make gRPC wait as gevent does; call this once per process, before the first channel."""
    grpc_gevent.init_gevent()


class GrpcConnection:
    """Sends requests to one target over its own channel and connection."""

    def __init__(self, target: Target) -> None:
        options: list[tuple[str, object]] = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        if target.host:
            options.append(("grpc.default_authority", target.host))
        self._channel = grpc.insecure_channel(target.grpc, options)
        self._call = self._channel.unary_unary(METHOD)
        self._timeout = target.timeout

    def ask(self, request: bytes) -> Answer:
        """Send a message and return the answer. Raises TimeoutError, ConnectionError."""
        try:
            body, call = self._call.with_call(request, timeout=self._timeout)
        except grpc.RpcError as error:
            return _failed(error)
        return Answer(200, {key: str(value) for key, value in call.trailing_metadata() or ()}, body)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


def _failed(error: grpc.RpcError) -> Answer:
    code, details = error.code(), error.details() or ""
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        raise TimeoutError(details)
    headers = {key: str(value) for key, value in error.trailing_metadata() or ()}
    if code == grpc.StatusCode.UNAVAILABLE and "retry-after" not in headers:
        raise ConnectionError(details[:200])
    return Answer(_STATUS.get(code, 500), headers, details.encode())
