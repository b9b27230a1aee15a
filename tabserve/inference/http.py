"""The REST side as an ASGI application: V2, V1, health, metadata and metrics."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from tabserve import __version__
from tabserve.inference.admission import Admission, deadline, within_deadline
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
Pairs: TypeAlias = list[tuple[bytes, bytes]]
Page: TypeAlias = tuple[int, bytes]
Work: TypeAlias = Callable[[bytes, Headers, Context], Awaitable[tuple[bytes, Pairs]]]

EXTENSIONS = ["binary_tensor_data"]
TRACE_HEADERS = (b"traceparent", b"tracestate", b"x-request-id")

_JSON = (b"content-type", b"application/json")
_BINARY = (b"content-type", b"application/octet-stream")
_TEXT = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
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
        self._headers = [(name.encode(), value.encode()) for name, value in model.headers.items()]
        self._overloaded = _whole(Overloaded(admission.reason), self._headers)
        self._pages = _pages(metadata, ready, metrics)
        self._work = self._work_paths()

    def _work_paths(self) -> dict[bytes, Work]:
        metadata = self._model.metadata
        name = metadata.name.encode()
        versions = [b"", *(b"/versions/" + version.encode() for version in metadata.versions)]
        infer = {b"/v2/models/%b%b/infer" % (name, version): self._infer for version in versions}
        return {**infer, b"/v1/models/%b:predict" % name: self._predict}

    def refuse(self, method: bytes, path: bytes) -> bytes | None:
        """The whole answer to a request that gets no place; None where it must be read first.

        Called when its headers are there: under overload most of what a server does is to refuse.
        """
        work = self._work.get(path) if self._admission.full and method == b"POST" else None
        if work is None:
            return None
        self._admission.count_refusal(self._protocol(work))
        self._count(Overloaded.http_status, self._protocol(work), 0.0)
        return self._overloaded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            return
        work = self._work.get(scope["raw_path"]) if scope["method"] == "POST" else None
        if work is None:
            await self._answer_page(scope, send)
            return
        protocol = self._protocol(work)
        started = time.perf_counter()
        connection = scope["tabserve.connection"]
        connection.task = asyncio.current_task()
        try:
            body, extra = await self._work_on(work, protocol, receive, dict(scope["headers"]))
        except asyncio.CancelledError:
            logger.debug("the client went away")
        except InferenceError as error:
            connection.linger()
            await self._answer_error(error, protocol, started, send)
        except Exception as error:  # noqa: BLE001 - the edge: logged by type and place, answered as a 500
            await self._answer_error(failed(error), protocol, started, send)
        else:
            await self._answer(200, body, extra, send)
            self._count(200, protocol, time.perf_counter() - started)
        finally:
            connection.task = None

    async def _work_on(self, work: Work, protocol: str, receive: Receive, headers: Headers) -> tuple[bytes, Pairs]:
        context = _context(headers)
        # A place is taken once the body is there: a client that sends slowly holds none.
        body = await _read(receive, headers, self._max_body_bytes)
        self._admission.enter(protocol)
        try:
            running = work(body, headers, context)
            if context.deadline == math.inf:
                answer, extra = await running
            else:
                answer, extra = await within_deadline(running, context)
        finally:
            self._admission.leave()
        if context.response_headers:
            extra += [(name.encode(), value.encode()) for name, value in context.response_headers.items()]
        return answer, extra

    async def _infer(self, body: bytes, headers: Headers, context: Context) -> tuple[bytes, Pairs]:
        request = decode_request(body, headers.get(b"inference-header-content-length"))
        response = await self._model.infer(request, context)
        encoded = self._encoder.encode(request, response)
        if encoded.json_size is None:
            return encoded.body, [_JSON]
        return encoded.body, [_BINARY, (b"inference-header-content-length", b"%d" % encoded.json_size)]

    async def _predict(self, body: bytes, _: Headers, context: Context) -> tuple[bytes, Pairs]:
        return await self._model.predict(body, context), [_JSON]

    async def _answer_page(self, scope: Scope, send: Send) -> None:
        path, method = scope["raw_path"], scope["method"]
        page = self._pages.get(path)
        allow = b"GET, HEAD" if page else b"POST" if path in self._work else b""
        if page and method in ("GET", "HEAD"):
            status, body = page()
            await self._answer(status, body, [_TEXT if path == b"/metrics" else _JSON], send)
        elif allow:
            body = orjson.dumps({"error": f"expected method {allow.decode()}"})
            await self._answer(405, body, [_JSON, (b"allow", allow)], send)
        else:
            await self._answer(404, orjson.dumps({"error": _not_found(path, self._model.metadata)}), [_JSON], send)

    async def _answer_error(self, error: InferenceError, protocol: str, started: float, send: Send) -> None:
        await self._answer(error.http_status, error_body(error.message), _error_headers(error), send)
        self._count(error.http_status, protocol, time.perf_counter() - started)

    def _count(self, status: int, protocol: str, seconds: float) -> None:
        self._metrics.requests.add(protocol, str(status))
        self._metrics.seconds.observe(seconds, protocol)

    def _protocol(self, work: Work) -> str:
        return "v1" if work == self._predict else "rest"

    async def _answer(self, status: int, body: bytes, headers: Pairs, send: Send) -> None:
        headers = [(b"content-length", b"%d" % len(body)), *headers, *self._headers]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def error_body(message: str) -> bytes:
    """`{"error": message}`; characters that JSON cannot carry are replaced."""
    return orjson.dumps({"error": message.encode(errors="replace").decode()})


def _error_headers(error: InferenceError) -> Pairs:
    return [_JSON] if error.retry_after is None else [_JSON, (b"retry-after", b"%d" % error.retry_after)]


def _whole(error: InferenceError, headers: Pairs) -> bytes:
    """An error as it goes over the wire, on a connection that stays open."""
    body = error_body(error.message)
    lines = [(b"content-length", b"%d" % len(body)), *_error_headers(error), *headers]
    head = b"".join(b"%b: %b\r\n" % pair for pair in lines)
    return b"%b%b\r\n%b" % (STATUS_LINE[error.http_status], head, body)


def _not_found(path: bytes, metadata: ModelMetadata) -> str:
    if path.startswith((b"/v2/models/", b"/v1/models/")):
        known = ", ".join(metadata.versions)
        return f"no such model, version or path; the model here is {metadata.name}, versions {known}"
    return "no such path"


def _context(headers: Headers) -> Context:
    trace = {name.decode(): headers[name].decode("latin-1") for name in TRACE_HEADERS if name in headers}
    timeout = headers.get(b"x-request-timeout-ms")
    return Context(deadline(timeout), trace)


async def _read(receive: Receive, headers: Headers, limit: int) -> bytes:
    """The whole body; raises before it reads more than `limit` bytes, and where the media type is none of ours."""
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("content-encoding: expected none (identity)")
    media_type = headers.get(b"content-type")
    if media_type is not None and media_type != b"application/json" and not _READABLE.fullmatch(media_type):
        raise UnsupportedMediaType("content-type: expected application/json or application/octet-stream")
    too_large = RequestTooLarge(f"expected a body of at most {limit} bytes")
    if int(headers.get(b"content-length", b"0")) > limit:
        raise too_large
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return body
    chunks, size = [body], len(body)
    while message.get("more_body"):
        message = await receive()
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise too_large
    return b"".join(chunks)


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
