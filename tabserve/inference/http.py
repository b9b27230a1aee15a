"""The REST side as an ASGI application: V2, V1, health, metadata and metrics."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import lru_cache
from typing import Any, Protocol, TypeAlias

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from tabserve import __version__
from tabserve.inference.admission import Admission, deadline
from tabserve.inference.errors import (
    InferenceError,
    Overloaded,
    PredictionFailed,
    RequestTooLarge,
    UnsupportedMediaType,
)
from tabserve.inference.metrics import Metrics
from tabserve.inference.model import Context, Model
from tabserve.inference.rest_codec import ResponseEncoder, decode_request
from tabserve.inference.tensors import ModelMetadata

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = dict[bytes, bytes]
Page: TypeAlias = tuple[int, bytes]
Work: TypeAlias = Callable[[bytes, Headers, Context], Awaitable[tuple[bytes, bytes]]]
"""Of a body its answer, and the lines of headers that belong to it."""

EXTENSIONS = ["binary_tensor_data"]
TRACE_HEADERS = (b"traceparent", b"tracestate", b"x-request-id")

JSON = b"content-type: application/json\r\n"
_BINARY = b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n"
_TEXT = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
# curl -d sends a form type, and many clients send none: what cannot be anything but JSON is read as JSON.
_READABLE = re.compile(
    rb"(application/([\w.-]+\+)?json|application/octet-stream|application/x-www-form-urlencoded)\s*(;.*)?",
    re.IGNORECASE,
)

logger = logging.getLogger(__name__)


def failed(error: Exception) -> PredictionFailed:
    """What a client hears of an unexpected failure; the log hears its type and place, not its text.

    The text of a library's error may quote the request.
    """
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "an unknown place"
    logger.error("prediction failed: %s at %s", type(error).__name__, place)
    return PredictionFailed("prediction failed")


class Connection(Protocol):
    """What answers go to."""

    @property
    def alone(self) -> bool:
        """Whether no other request is under way."""

    @property
    def waited(self) -> float:
        """Seconds for which the request was left unread."""

    def body(self) -> bytes | None:
        """The request's body, where all of it has come already."""

    def linger(self) -> None:
        """The request is answered before it was read: throw away what is still to come of it."""

    async def answer(self, status: int, lines: bytes, body: bytes) -> None:
        """Send a whole answer; lines: of its headers but those of the framing."""


class Application:
    """Serves one model over REST; see the checklist in tests/contract for what each path answers."""

    def __init__(
        self,
        model: Model,
        ready: Callable[[], bool],
        admission: Admission,
        metrics: Metrics,
        max_body_bytes: int,
    ) -> None:
        self._model = model
        self._admission = admission
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        metadata = model.metadata
        self._encoder = ResponseEncoder(metadata.name, metadata.versions[-1])
        self._headers = b"".join(line(name, value) for name, value in model.headers.items())
        status, lines, body = _refused(Overloaded(admission.reason))
        self._overloaded = message(status, lines + self._headers, body)
        self._pages = _pages(metadata, ready, metrics)
        self._work = self._work_paths()

    def _work_paths(self) -> dict[bytes, Work]:
        metadata = self._model.metadata
        name = metadata.name.encode()
        versions = [b"", *(b"/versions/" + version.encode() for version in metadata.versions)]
        infer = {b"/v2/models/%b%b/infer" % (name, version): self._infer for version in versions}
        return {**infer, b"/v1/models/%b:predict" % name: self._predict}

    def refuse(self, method: bytes, path: bytes) -> bytes | None:
        """The whole answer to a request that gets no place; None where it needs none.

        Called when its headers are there: under overload most of what a server does is to refuse.
        """
        work = self._work.get(path) if method == b"POST" else None
        if work is None:
            return None
        self._admission.count_refusal(self._protocol(work))
        self._count(Overloaded.http_status, self._protocol(work), 0.0)
        return self._overloaded

    async def __call__(self, scope: Scope, receive: Receive, _: Send) -> None:
        """Answer one request (ASGI, but for the answer, which goes to the connection as one)."""
        if scope["type"] != "http":
            return
        connection: Connection = scope["tabserve.connection"]
        work = self._work.get(scope["raw_path"]) if scope["method"] == "POST" else None
        try:
            if work is None:
                status, lines, body = self._page(scope["raw_path"], scope["method"])
                await connection.answer(status, lines + self._headers, body)
            else:
                await self._worked(work, receive, dict(scope["headers"]), connection)
        except asyncio.CancelledError:
            logger.debug("the client went away")

    async def _worked(self, work: Work, receive: Receive, headers: Headers, connection: Connection) -> None:
        protocol = self._protocol(work)
        started = time.perf_counter() - connection.waited
        try:
            context = _context(headers, connection)
            body = await _read(connection.body(), receive, headers, self._max_body_bytes)
            body, lines = await self._work_on(work, protocol, body, headers, context)
            status = 200
        except InferenceError as error:
            connection.linger()
            status, lines, body = _refused(error)
        except Exception as error:  # noqa: BLE001 - the edge: logged by type and place, answered as a 500
            status, lines, body = _refused(failed(error))
        await connection.answer(status, lines + self._headers, body)
        self._count(status, protocol, time.perf_counter() - started)

    async def _work_on(
        self, work: Work, protocol: str, body: bytes, headers: Headers, context: Context
    ) -> tuple[bytes, bytes]:
        # A place is taken once the body is there: a client that sends slowly holds none.
        self._admission.enter(protocol, promised=True)
        try:
            context.remaining()  # raises where the deadline has passed
            answer, lines = await work(body, headers, context)
        finally:
            self._admission.leave()
        for name, value in context.response_headers.items():
            lines += line(name, value)
        return answer, lines

    async def _infer(self, body: bytes, headers: Headers, context: Context) -> tuple[bytes, bytes]:
        request = decode_request(body, headers.get(b"inference-header-content-length"))
        response = await self._model.infer(request, context)
        encoded = self._encoder.encode(request, response)
        return encoded.body, JSON if encoded.json_size is None else _BINARY % encoded.json_size

    async def _predict(self, body: bytes, _: Headers, context: Context) -> tuple[bytes, bytes]:
        return await self._model.predict(body, context), JSON

    def _page(self, path: bytes, method: str) -> tuple[int, bytes, bytes]:
        page = self._pages.get(path)
        allow = "GET, HEAD" if page else "POST" if path in self._work else ""
        if page and method in ("GET", "HEAD"):
            status, body = page()
            return status, _TEXT if path == b"/metrics" else JSON, body
        if allow:
            return 405, JSON + line("allow", allow), error_body(f"expected method {allow}")
        return 404, JSON, error_body(_not_found(path, self._model.metadata))

    def _count(self, status: int, protocol: str, seconds: float) -> None:
        self._metrics.requests.add(protocol, str(status))
        self._metrics.seconds.observe(seconds, protocol)

    def _protocol(self, work: Work) -> str:
        return "v1" if work == self._predict else "rest"


def error_body(message: str) -> bytes:
    """`{"error": message}`; characters that JSON cannot carry are replaced."""
    return orjson.dumps({"error": message.encode(errors="replace").decode()})


def message(status: int, lines: bytes, body: bytes, *, ends: bool = False, head_only: bool = False) -> bytes:
    """An answer as it goes over the wire.

    ends: whether the connection ends with it. head_only: leave the body out, which only its length tells of.
    """
    framing = b"content-length: %d\r\nconnection: close\r\n\r\n" if ends else b"content-length: %d\r\n\r\n"
    return b"".join((STATUS_LINE[status], lines, framing % len(body), b"" if head_only else body))


@lru_cache
def line(name: str, value: str) -> bytes:
    """A header's line. Raises ValueError where the value would end it."""
    if not value.isprintable():
        raise ValueError(f"header {name}: expected printable characters, got {value!r}")
    return f"{name}: {value}\r\n".encode()


def _refused(error: InferenceError) -> tuple[int, bytes, bytes]:
    """Status, lines of headers and body."""
    lines = JSON if error.retry_after is None else JSON + line("retry-after", str(error.retry_after))
    return error.http_status, lines, error_body(error.message)


def _not_found(path: bytes, metadata: ModelMetadata) -> str:
    if path.startswith((b"/v2/models/", b"/v1/models/")):
        known = ", ".join(metadata.versions)
        return f"no such model, version or path; the model here is {metadata.name}, versions {known}"
    return "no such path"


def _context(headers: Headers, connection: Connection) -> Context:
    trace = {name.decode(): headers[name].decode("latin-1") for name in TRACE_HEADERS if name in headers}
    timeout = headers.get(b"x-request-timeout-ms")
    return Context(deadline(timeout, connection.waited), trace, connection.alone)


async def _read(body: bytes | None, receive: Receive, headers: Headers, limit: int) -> bytes:
    """The whole body, which may be there already.

    Raises before it reads more than `limit` bytes, and where the media type is none of ours.
    """
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("content-encoding: expected none (identity)")
    media_type = headers.get(b"content-type")
    if media_type is not None and media_type != b"application/json" and not _READABLE.fullmatch(media_type):
        raise UnsupportedMediaType("content-type: expected application/json or application/octet-stream")
    if int(headers.get(b"content-length", b"0")) > limit:
        raise _too_large(limit)
    if body is not None and len(body) <= limit:
        return body
    chunks, size, more = list[bytes](), 0, True
    while more:
        received = await receive()
        chunks.append(received.get("body", b""))
        size += len(chunks[-1])
        more = received.get("more_body", False)
        if size > limit:
            raise _too_large(limit)
    return b"".join(chunks)


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"expected a body of at most {limit} bytes")


def _pages(
    metadata: ModelMetadata, is_ready: Callable[[], bool], metrics: Metrics
) -> Mapping[bytes, Callable[[], Page]]:
    name = metadata.name

    def fixed(content: object) -> Callable[[], Page]:
        body = orjson.dumps(content)
        return lambda: (200, body)

    def ready(when: object, otherwise: object) -> Callable[[], Page]:
        bodies = orjson.dumps(when), orjson.dumps(otherwise)
        return lambda: (200, bodies[0]) if is_ready() else (503, bodies[1])

    server = fixed({"name": "tabserve", "version": __version__, "extensions": EXTENSIONS})
    not_ready = {"ready": False, "error": "the model is not ready"}
    model_ready = ready({"name": name, "ready": True}, {"name": name, **not_ready})
    pages = {
        "/v2": server,
        "/v2/": server,
        "/v2/health/live": fixed({"live": True}),
        "/v2/health/ready": ready({"ready": True}, not_ready),
        "/v1/models": fixed({"models": [name]}),
        f"/v1/models/{name}": model_ready,
        "/metrics": lambda: (200, metrics.page()),
    }
    described = fixed(metadata_content(metadata))
    for version in ("", *(f"/versions/{version}" for version in metadata.versions)):
        pages[f"/v2/models/{name}{version}"] = described
        pages[f"/v2/models/{name}{version}/ready"] = model_ready
    return {path.encode(): page for path, page in pages.items()}


def metadata_content(metadata: ModelMetadata) -> dict[str, Any]:
    """Model metadata as inference_rest.md spells it; `properties` as in the gRPC message."""
    return {
        "name": metadata.name,
        "versions": metadata.versions,
        "platform": metadata.platform,
        "inputs": [{"name": t.name, "datatype": t.datatype, "shape": t.shape} for t in metadata.inputs],
        "outputs": [{"name": t.name, "datatype": t.datatype, "shape": t.shape} for t in metadata.outputs],
        "properties": metadata.properties,
    }
