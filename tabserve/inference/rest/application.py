"""The protocol over REST: each path's answers, for V2, V1, health, metadata and, without an admin port, metrics."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache, partial
from http import HTTPStatus
from typing import NamedTuple, TypeAlias
from urllib.parse import unquote_to_bytes

import msgspec
import orjson

from tabserve.inference import repository
from tabserve.inference.admission import Admission
from tabserve.inference.arms import ARM, SHADOW, arm
from tabserve.inference.bounds import LARGE_BYTES
from tabserve.inference.deadlines import deadline
from tabserve.inference.errors import (
    InferenceError,
    InvalidRequest,
    Overloaded,
    PredictionFailed,
    RequestTooLarge,
    UnsupportedMediaType,
    quoted,
)
from tabserve.inference.large import in_thread
from tabserve.inference.logs import limited, place
from tabserve.inference.metrics import Metrics
from tabserve.inference.model import ON_ERROR, Context, Model
from tabserve.inference.request_ids import REQUEST_ID, TRACE_HEADERS, RequestIds
from tabserve.inference.rest.codec import ResponseEncoder, decode_json, decode_request
from tabserve.inference.rest.home import Home, browser_pages, figures_pages, wants_html
from tabserve.inference.rest.pages import JSON, Page, Pages, health_pages, metadata_pages, metrics_pages
from tabserve.inference.rest.parser import Request
from tabserve.inference.tensors import ModelMetadata

Answer: TypeAlias = tuple[int, bytes, bytes]
"""An answer: status, the header lines without the framing's, and body."""

_TRACE = tuple((name.encode(), name) for name in TRACE_HEADERS)
_ID = REQUEST_ID.encode()
_ON_ERROR = ON_ERROR.encode()
_ARM, _SHADOW = ARM.encode(), SHADOW.encode()

_BINARY = b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n"
# curl -d sends a form type, and many clients send none, so whatever can only be JSON is read as JSON.
_READABLE = re.compile(
    rb"(application/([\w.-]+\+)?json|application/octet-stream|application/x-www-form-urlencoded)\s*(;.*)?",
    re.IGNORECASE,
)
_PLAIN = (b"application/json", b"application/octet-stream")
"""Media types in the form that nearly all clients write."""
_CLOUD_EVENTS = b"application/cloudevents"
"""The media type of CloudEvents, which are refused.

In their binary mode, Knative's broker would count an answer without `ce-` headers as a failure.
"""


class _IndexRequest(msgspec.Struct):
    ready: bool = False


_decode_index = msgspec.json.Decoder(_IndexRequest).decode

_STATUS_LINE = {status: f"HTTP/1.1 {status} \r\n".encode() for status in range(100, 600)} | {
    int(status): f"HTTP/1.1 {status} {status.phrase}\r\n".encode() for status in HTTPStatus
}
"""Status lines, also for statuses that are not registered, which a predictor may answer with (RFC 9112, section 4)."""

logger = logging.getLogger(__name__)


class Route(NamedTuple):
    """A function that answers a path's requests with header lines and body."""

    work: Callable[[Request, Context], Awaitable[tuple[bytes, bytes]]]
    protocol: str


def failed(error: BaseException) -> PredictionFailed:
    """The error that a client sees after an unexpected failure; the log names its type and place, not its text.

    The text of a library's error might quote the request.
    """
    name, at = type(error).__name__, place(error)
    message = f"prediction failed: {name} at {at}"
    limited.tell(logger, logging.ERROR, "prediction_failed", message, cause=message, exception=name, at=at)
    return PredictionFailed("prediction failed")


class Application:
    """Serves one model over REST; see the checklist in tests/contract for what each path answers.

    shows_metrics: whether metrics are among the pages. home: the page for browsers, if there is to be one.
    """

    def __init__(
        self,
        model: Model,
        ready: Callable[[], bool],
        admission: Admission,
        metrics: Metrics,
        max_body_bytes: int,
        *,
        shows_metrics: bool = True,
        home: Home | None = None,
    ) -> None:
        self._model = model
        self._ready = ready
        self._admission = admission
        self._metrics = metrics
        self._ids = RequestIds()
        self._max_body_bytes = max_body_bytes
        metadata = model.metadata
        self._encoder = ResponseEncoder(metadata.name, metadata.versions[-1])
        self._headers = b"".join(line(name, value) for name, value in model.headers.items())
        self._overloaded = self._refusal(Overloaded(admission.reason))
        self._pages: Pages = {
            **health_pages(metadata, ready, is_live=lambda: True),
            **metadata_pages(metadata),
            **(metrics_pages(metrics.page) if shows_metrics else {}),
            **(figures_pages(metrics) if home else {}),
        }
        self._html: Pages = browser_pages(home) if home else {}
        self._routes = self._work_paths()

    def _work_paths(self) -> dict[bytes, Route]:
        metadata = self._model.metadata
        name = metadata.name.encode()
        versions = [b"", *(b"/versions/" + version.encode() for version in metadata.versions)]
        infer, predict = Route(self._infer, "rest"), Route(self._predict, "v1")
        return {
            **{b"/v2/models/%b%b/infer" % (name, version): infer for version in versions},
            b"/v1/models/%b:predict" % name: predict,
            **_repository_routes(metadata, self._ready),
        }

    def admit(self, request: Request, *, unplaced: bool) -> Answer | None:
        """The answer to a request that needs only the headers, None if the body must be read.

        unplaced: whether there is no place for the request.
        """
        route = self._route(request)
        if route is None and b"%" in request.path:
            request.path = unescaped(request.path)
            route = self._route(request)
        if route is None:
            return self.page(request)
        given = request.headers.get(_ID)
        request.headers[_ID] = self._ids.of(None if given is None else given.decode("latin-1")).encode()
        if unplaced:
            self._admission.count_refusal(route.protocol)
            self._count(Overloaded.http_status, route.protocol, request)
            return self.identified(self._overloaded, request)
        try:
            request.size = _check(request.headers, self._max_body_bytes)
        except InferenceError as error:
            return self._refused(error, request)
        return None

    def _route(self, request: Request) -> Route | None:
        return self._routes.get(request.path) if request.method == b"POST" else None

    def too_large(self, request: Request) -> Answer:
        """The answer to a request whose body is over the limit."""
        return self._refused(_too_large(self._max_body_bytes), request)

    def out_of_memory(self, request: Request) -> Answer:
        """The answer to a request for whose body there is no memory."""
        return self._refused(Overloaded("too many large requests at once"), request)

    def failure(self, error: BaseException, request: Request) -> Answer:
        """The answer to a request that ended in an error not caused by the client."""
        return self._refused(failed(error), request)

    async def answer(self, request: Request) -> Answer:
        """The answer to an admitted request, once its body is there."""
        route = self._routes[request.path]
        try:
            context = _context(request)
            self._admission.enter(route.protocol)
            try:
                context.remaining()  # raises if the deadline has passed
                lines, body = await route.work(request, context)
            finally:
                self._admission.leave()
            for name, value in context.response_headers.items():
                lines += line(name, value)
        except InferenceError as error:
            return self._refused(error, request)
        except Exception as error:  # noqa: BLE001 - the edge: logged by type and place, answered as a 500
            return self.failure(error, request)
        self._count(200, route.protocol, request)
        return self.identified((200, lines + self._headers, body), request)

    async def _infer(self, request: Request, context: Context) -> tuple[bytes, bytes]:
        body, size = request.body, request.headers.get(b"inference-header-content-length")
        bounds = self._model.bounds
        if len(body) > LARGE_BYTES:
            asked = await in_thread(partial(decode_request, body, size, bounds))
        else:
            asked = decode_request(body, size, bounds)
        encoded = self._encoder.encode(asked, await self._model.infer(asked, context))
        return JSON if encoded.json_size is None else _BINARY % encoded.json_size, encoded.body

    async def _predict(self, request: Request, context: Context) -> tuple[bytes, bytes]:
        if len(request.body) > LARGE_BYTES:
            await in_thread(partial(self._model.bounds.check_predict, request.body))
        return JSON, await self._model.predict(request.body, context)

    def page(self, request: Request) -> Answer:
        """The answer to a request that needs neither the model nor a body."""
        path = request.path
        make = self._for_browser(request) or self._pages.get(path)
        if make and request.method in (b"GET", b"HEAD"):
            status, lines, body = make()
        elif make or path in self._routes:
            status, lines, body = not_allowed("GET, HEAD" if make else "POST")
        else:
            status, lines, body = 404, JSON, error_body(_not_found(path, self._model.metadata))
        return status, lines + self._headers, body

    def _for_browser(self, request: Request) -> Callable[[], Page] | None:
        """What makes the page that a browser asks for, if the request is one's, and there is such a page."""
        make = self._html.get(request.path)
        return make if make and wants_html(request.headers.get(b"accept", b"")) else None

    def _refused(self, error: InferenceError, request: Request) -> Answer:
        self._count(error.http_status, self._routes[request.path].protocol, request)
        return self.identified(self._refusal(error), request)

    def _refusal(self, error: InferenceError) -> Answer:
        lines = JSON if error.retry_after is None else JSON + line("retry-after", str(error.retry_after))
        return error.http_status, lines + self._headers, error_body(error.message)

    def identified(self, answer: Answer, request: Request) -> Answer:
        """A route's answer to a request, with the request's id."""
        status, lines, body = answer
        return status, b"%b%b: %b\r\n" % (lines, _ID, request.headers[_ID]), body

    def _count(self, status: int, protocol: str, request: Request) -> None:
        came = _arm(request.headers)
        self._metrics.requests.add(protocol, str(status), came)
        self._metrics.seconds.observe(time.perf_counter() - request.since, protocol, came)


def _repository_routes(metadata: ModelMetadata, ready: Callable[[], bool]) -> dict[bytes, Route]:
    """The routes of Triton's model repository extension, of which only the index is answered."""

    async def index(request: Request, _: Context) -> tuple[bytes, bytes]:
        only_ready = request.body != b"" and decode_json(_decode_index, request.body).ready
        return JSON, orjson.dumps(repository.index(metadata, ready=ready(), only_ready=only_ready))

    async def refuse(_: Request, __: Context) -> tuple[bytes, bytes]:
        raise InvalidRequest(repository.REFUSAL)

    model = b"/v2/repository/models/" + metadata.name.encode()
    return {
        b"/v2/repository/index": Route(index, "repository"),
        model + b"/load": Route(refuse, "repository"),
        model + b"/unload": Route(refuse, "repository"),
    }


def error_body(message: str) -> bytes:
    """The body `{"error": message}`; characters that JSON cannot carry are replaced."""
    return orjson.dumps({"error": message.encode(errors="replace").decode()})


def not_allowed(allow: str) -> Answer:
    """The answer to a request with any other method."""
    return 405, JSON + line("allow", allow), error_body(f"expected method {allow}")


def message(status: int, lines: bytes, body: bytes, *, ends: bool = False, head_only: bool = False) -> bytes:
    """An answer in its wire form.

    ends: whether the connection ends with it. head_only: leave the body out, and send only its length.
    """
    framing = b"content-length: %d\r\nconnection: close\r\n\r\n" if ends else b"content-length: %d\r\n\r\n"
    return b"".join((_STATUS_LINE[status], lines, framing % len(body), b"" if head_only else body))


def unescaped(path: bytes) -> bytes:
    """A path with percent-decoded segments (RFC 3986, section 2.1), except where that would divide one (%2F).

    Anything that is not an escape stays as it is, so that it matches no existing path.
    """
    segments = [(segment, unquote_to_bytes(segment)) for segment in path.split(b"/")]
    return b"/".join(given if b"/" in made else made for given, made in segments)


@lru_cache
def line(name: str, value: str) -> bytes:
    """A header's line. Raises ValueError if the value would end it."""
    if not value.isprintable():
        raise ValueError(f"header {name}: expected printable characters, got {value!r}")
    return f"{name}: {value}\r\n".encode()


def _not_found(path: bytes, metadata: ModelMetadata) -> str:
    if path.startswith((b"/v2/models/", b"/v1/models/", b"/v2/repository/models/")):
        known = ", ".join(metadata.versions)
        return f"no such model, version or path; the model here is {metadata.name}, versions {known}"
    return "no such path"


def _context(request: Request) -> Context:
    headers = request.headers
    trace = {name: headers[sent].decode("latin-1") for sent, name in _TRACE if sent in headers}
    on_error = headers[_ON_ERROR].decode("latin-1") if _ON_ERROR in headers else ""
    left = deadline(headers.get(b"x-request-timeout-ms"), request.waited)
    return Context(left, trace, request.alone, on_error, _arm(headers))


def _arm(headers: Mapping[bytes, bytes]) -> str:
    return arm(headers.get(_SHADOW), headers.get(_ARM))


def _check(headers: Mapping[bytes, bytes], limit: int) -> int:
    """How long a body may be according to its headers, or the limit if they don't say.

    Raises if the body can't be read, because of its media type or its length.
    """
    if b"ce-specversion" in headers or headers.get(b"content-type", b"").lower().startswith(_CLOUD_EVENTS):
        raise UnsupportedMediaType("CloudEvents are not supported: send only their data, as application/json")
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding.lower() != b"identity":
        raise UnsupportedMediaType(f"content-encoding: expected none (identity), got {_quoted(encoding)}")
    media_type = headers.get(b"content-type", b"application/json")
    if media_type not in _PLAIN and not _READABLE.fullmatch(media_type):
        expected = "application/json or application/octet-stream"
        raise UnsupportedMediaType(f"content-type: expected {expected}, got {_quoted(media_type)}")
    size = int(headers.get(b"content-length", limit if b"transfer-encoding" in headers else 0))
    if size > limit:
        raise _too_large(limit)
    return size


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"expected a body of at most {limit} bytes")


def _quoted(value: bytes) -> str:
    return quoted(value.decode("latin-1"))
