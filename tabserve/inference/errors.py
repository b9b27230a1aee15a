"""The errors that a client can see, and the table that maps them to HTTP and gRPC."""

from __future__ import annotations

import json


class InferenceError(Exception):
    """The root of every error that a service answers with.

    InferenceError                500 INTERNAL
    ├── InvalidRequest            400 INVALID_ARGUMENT
    ├── ModelNotFound             404 NOT_FOUND
    ├── RequestTooLarge           413 RESOURCE_EXHAUSTED
    ├── UnsupportedMediaType      415 INVALID_ARGUMENT
    ├── Unavailable               503 UNAVAILABLE, Retry-After
    │   ├── Overloaded
    │   ├── NotReady
    │   └── PredictorUnavailable
    ├── DeadlineExceeded          504 DEADLINE_EXCEEDED
    └── PredictionFailed          500 INTERNAL

    The message is written for the client and goes out as ``{"error": message}``: it may name tensors, fields and
    expectations, never internals.
    """

    http_status = 500
    grpc_status = "INTERNAL"
    retry_after: int | None = None
    """Seconds after which a client may try again, None if trying again cannot help."""

    @property
    def message(self) -> str:
        """The text for the client."""
        return str(self)


class InvalidRequest(InferenceError):
    """The request is malformed or does not fit the model: expected, got, where."""

    http_status = 400
    grpc_status = "INVALID_ARGUMENT"


class ModelNotFound(InferenceError):
    """No such model, version or path."""

    http_status = 404
    grpc_status = "NOT_FOUND"


class RequestTooLarge(InferenceError):
    """The body, its row count or its nesting is over a limit."""

    http_status = 413
    grpc_status = "RESOURCE_EXHAUSTED"


class UnsupportedMediaType(InferenceError):
    """A content type or encoding that the server does not support."""

    http_status = 415
    grpc_status = "INVALID_ARGUMENT"


class Unavailable(InferenceError):
    """Nothing was started; the same request may succeed later."""

    http_status = 503
    grpc_status = "UNAVAILABLE"
    retry_after = 1


class Overloaded(Unavailable):
    """Admission is full."""


class NotReady(Unavailable):
    """The model is not loaded yet, or not ready to answer."""


class PredictorUnavailable(Unavailable):
    """The transformer reached no predictor of its own release."""


class DeadlineExceeded(InferenceError):
    """The client's deadline passed before there was an answer."""

    http_status = 504
    grpc_status = "DEADLINE_EXCEEDED"


class PredictionFailed(InferenceError):
    """The model failed on a valid request; the cause is in the server's log, without the payload."""


def quoted(value: str) -> str:
    """A client's text for an error message, in quotes and shortened."""
    return json.dumps(shortened(value), ensure_ascii=False)


def shortened(value: str) -> str:
    """A client's text for an error message, of at most 41 characters."""
    return value if len(value) <= 40 else value[:40] + "…"
