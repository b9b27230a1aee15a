"""The protocol over gRPC: GRPCInferenceService and grpc.health.v1 on grpc.aio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from copy import copy
from functools import partial
from typing import Any, TypeAlias

from tabserve.inference.grpc import tuning  # must be imported before grpc

# isort: split
import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tabserve import __version__
from tabserve.inference import repository, tls
from tabserve.inference.admission import Admission
from tabserve.inference.arms import ARM, SHADOW, arm
from tabserve.inference.bounds import LARGE_BYTES
from tabserve.inference.errors import InferenceError, InvalidRequest, ModelNotFound
from tabserve.inference.grpc import open_inference_pb2 as pb
from tabserve.inference.grpc import reflection
from tabserve.inference.grpc.codec import ResponseEncoder, decode_request
from tabserve.inference.grpc.credentials import credentials
from tabserve.inference.grpc.fields import check_fields
from tabserve.inference.grpc.reading import Messages
from tabserve.inference.large import in_thread
from tabserve.inference.metrics import Metrics
from tabserve.inference.model import ON_ERROR, Context, Model
from tabserve.inference.request_ids import REQUEST_ID, TRACE_HEADERS, RequestIds
from tabserve.inference.rest.application import failed
from tabserve.inference.rest.pages import EXTENSIONS
from tabserve.inference.settings import ServerSettings
from tabserve.inference.tensors import InferRequest, ModelMetadata, TensorSpec

SERVICE = "inference.GRPCInferenceService"
HOLD_SECONDS = 0.2
FEWEST_STREAMS = 128
"""How many calls a connection may have at once, so that health is answered while others are worked on."""
MOST_QUESTION_BYTES = 64 * 2**10
"""The longest message that names just a model and a version; longer ones are read only up to here."""

Method: TypeAlias = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]


class Arrivals:
    """Counts the requests in a turn of the event loop; a lone one has no others to wait for."""

    def __init__(self) -> None:
        self._came = self._came_before = 0

    def comes_alone(self) -> bool:
        """Count a request; returns whether no other came in this turn, nor in the last turn in which any came."""
        self._came += 1
        if self._came > 1:
            return False
        asyncio.get_running_loop().call_soon(self._end_turn)
        return self._came_before <= 1

    def _end_turn(self) -> None:
        self._came_before, self._came = self._came, 0


class Questions:
    """Answers questions about a server and its model."""

    def __init__(self, metadata: ModelMetadata, ready: Callable[[], bool]) -> None:
        self.ready = ready
        self._metadata = metadata
        self._description = _description(metadata)

    async def ServerLive(self, _: Any, __: grpc.aio.ServicerContext) -> pb.ServerLiveResponse:  # noqa: N802
        """Whether the process answers."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, _: Any, __: grpc.aio.ServicerContext) -> pb.ServerReadyResponse:  # noqa: N802
        """Whether the model is ready."""
        return pb.ServerReadyResponse(ready=self.ready())

    async def ModelReady(  # noqa: N802
        self, request: pb.ModelReadyRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelReadyResponse:
        """Whether this model and version is ready."""
        await self._known(request.name, request.version, context)
        return pb.ModelReadyResponse(ready=self.ready())

    async def ServerMetadata(self, _: Any, __: grpc.aio.ServicerContext) -> pb.ServerMetadataResponse:  # noqa: N802
        """The server's name, version and extensions."""
        return pb.ServerMetadataResponse(name="tabserve", version=__version__, extensions=EXTENSIONS)

    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelMetadataResponse:
        """The model's metadata, with every tensor."""
        await self._known(request.name, request.version, context)
        return self._description

    async def RepositoryIndex(  # noqa: N802
        self, request: pb.RepositoryIndexRequest, _: grpc.aio.ServicerContext
    ) -> pb.RepositoryIndexResponse:
        """The model and its state."""
        entries = repository.index(self._metadata, ready=self.ready(), only_ready=request.ready)
        return pb.RepositoryIndexResponse(models=[pb.RepositoryIndexResponse.ModelIndex(**each) for each in entries])

    async def refuse_loading(self, _: Any, context: grpc.aio.ServicerContext) -> None:
        """Refuse to load or unload a model."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, repository.REFUSAL)

    def check_known(self, name: str, version: str) -> None:
        """Raise ModelNotFound unless this is the model and one of its versions."""
        metadata = self._metadata
        if name != metadata.name or (version and version not in metadata.versions):
            known = ", ".join(metadata.versions)
            raise ModelNotFound(f"no such model or version; the model here is {metadata.name}, versions {known}")

    async def _known(self, name: str, version: str, context: grpc.aio.ServicerContext) -> None:
        try:
            self.check_known(name, version)
        except ModelNotFound as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, error.message)


class Servicer:
    """Serves one model over gRPC."""

    def __init__(
        self,
        model: Model,
        ready: Callable[[], bool],
        admission: Admission,
        messages: Messages,
        metrics: Metrics,
    ) -> None:
        self._model = model
        self._messages = messages
        self.questions = Questions(model.metadata, ready)
        self._admission = admission
        self._metrics = metrics
        self._encoder = ResponseEncoder(model.metadata.name, model.metadata.versions[-1])
        self._headers = tuple(model.headers.items())
        self._ids = RequestIds()
        self._may_answer = asyncio.Event()
        self._may_answer.set()
        self._arrivals = Arrivals()

    def hold(self) -> None:
        """Hold answers back from now on."""
        self._may_answer.clear()

    def let_go(self) -> None:
        """Send the answers that were held back."""
        self._may_answer.set()

    async def ModelInfer(self, _: Any, context: grpc.aio.ServicerContext) -> bytes:  # noqa: N802
        """Answer tensors with tensors, as bytes; the message is read when there is a place and memory for it."""
        started = time.perf_counter()
        given = dict(context.invocation_metadata() or ())
        trace = self._trace(given)
        try:
            self._admission.refuse_if_full("grpc")
            response = await self._read(context, trace, given.get(ON_ERROR, ""))
        except InferenceError as error:
            refusal: InferenceError = copy(error)  # without the traceback, which refers to the message
        except Exception as error:  # noqa: BLE001 - the edge: logged by type and place, answered as INTERNAL
            refusal = failed(error)
        else:
            self._count("OK", started, trace)
            self._messages.send(response, context)
            return response
        # Outside the block that caught the error, which would be kept with the call's end in a cycle.
        await self._abort(refusal, context, started, trace)
        return b""  # never reached: the call is over

    def _trace(self, given: Mapping[str, str]) -> dict[str, str]:
        """The part of the call's metadata to pass on, including the id."""
        trace = {name: given[name] for name in TRACE_HEADERS if name in given}
        trace[REQUEST_ID] = self._ids.of(trace.get(REQUEST_ID))
        return trace

    def _count(self, status: str, started: float, trace: Mapping[str, str]) -> None:
        came = _arm(trace)
        self._metrics.requests.add("grpc", status, came)
        self._metrics.seconds.observe(time.perf_counter() - started, "grpc", came)

    def _trailing(self, trace: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """The metadata of an answer."""
        return (*self._headers, (REQUEST_ID, trace[REQUEST_ID]))

    async def _read(self, context: grpc.aio.ServicerContext, trace: Mapping[str, str], on_error: str) -> bytes:
        data, share = await self._messages.read(context)
        try:
            return await self._admitted(data, context, trace, on_error)
        finally:
            share.give_back()

    async def _admitted(
        self, data: bytes, context: grpc.aio.ServicerContext, trace: Mapping[str, str], on_error: str
    ) -> bytes:
        self._admission.enter("grpc")
        try:
            if len(data) > LARGE_BYTES:
                request = await in_thread(partial(self._decode, data))
            else:
                request = self._decode(data)
            ours = Context(_deadline(context), trace, self._arrivals.comes_alone(), on_error, _arm(trace))
            response = await self._model.infer(request, ours)
            if not self._may_answer.is_set():
                await self._may_answer.wait()
            context.set_trailing_metadata((*self._trailing(trace), *ours.response_headers.items()))
            return _serialize(self._encoder.encode(request, response))
        finally:
            self._admission.leave()

    def _decode(self, data: bytes) -> InferRequest:
        bounds = self._model.bounds
        check_fields(data, bounds)
        try:
            message = pb.ModelInferRequest.FromString(data)
        except DecodeError:
            raise InvalidRequest("expected a ModelInferRequest, got other bytes") from None
        self.questions.check_known(message.model_name, message.model_version)
        return decode_request(message, bounds)

    async def _abort(
        self, error: InferenceError, context: grpc.aio.ServicerContext, started: float, trace: Mapping[str, str]
    ) -> None:
        self._count(error.grpc_status, started, trace)
        trailing = self._trailing(trace)
        if error.retry_after is not None:
            trailing = (*trailing, ("retry-after", str(error.retry_after)))
        await context.abort(grpc.StatusCode[error.grpc_status], error.message, trailing)


def _arm(trace: Mapping[str, str]) -> str:
    return arm(trace.get(SHADOW), trace.get(ARM))


def _deadline(context: grpc.aio.ServicerContext) -> float:
    """The call's deadline, in time.monotonic()."""
    remaining = context.time_remaining()
    return float("inf") if remaining is None else time.monotonic() + remaining


def _description(metadata: ModelMetadata) -> pb.ModelMetadataResponse:
    return pb.ModelMetadataResponse(
        name=metadata.name,
        versions=metadata.versions,
        platform=metadata.platform,
        inputs=[_tensor_metadata(spec) for spec in metadata.inputs],
        outputs=[_tensor_metadata(spec) for spec in metadata.outputs],
        properties=metadata.all_properties,
    )


def _tensor_metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)


def _handlers(servicer: Servicer) -> grpc.GenericRpcHandler:
    questions = servicer.questions
    methods: dict[str, tuple[Method, Any]] = {
        "ServerLive": (questions.ServerLive, pb.ServerLiveRequest),
        "ServerReady": (questions.ServerReady, pb.ServerReadyRequest),
        "ModelReady": (questions.ModelReady, pb.ModelReadyRequest),
        "ServerMetadata": (questions.ServerMetadata, pb.ServerMetadataRequest),
        "ModelMetadata": (questions.ModelMetadata, pb.ModelMetadataRequest),
        "RepositoryIndex": (questions.RepositoryIndex, pb.RepositoryIndexRequest),
        "RepositoryModelLoad": (questions.refuse_loading, pb.RepositoryModelLoadRequest),
        "RepositoryModelUnload": (questions.refuse_loading, pb.RepositoryModelUnloadRequest),
    }
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(_parsing(method, request), response_serializer=_serialize)
        for name, (method, request) in methods.items()
    }
    # As a stream of one message, which is the same to a client, so that it is not read before the method is called.
    infer = grpc.stream_unary_rpc_method_handler(servicer.ModelInfer)
    return grpc.method_handlers_generic_handler(SERVICE, {**handlers, "ModelInfer": infer})


def _parsing(method: Method, request: Any) -> Method:
    """The method for message bytes; grpc's own deserialising would answer malformed ones with UNKNOWN."""

    async def parse(data: bytes, context: grpc.aio.ServicerContext) -> Any:
        try:
            message = request.FromString(data[:MOST_QUESTION_BYTES])
        except DecodeError:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"expected a {request.DESCRIPTOR.name}, got other bytes"
            )
        return await method(message, context)

    return parse


def _serialize(message: Any) -> bytes:
    content: bytes = message.SerializeToString()
    return content


class GrpcServer:
    """Serves one model over gRPC, with grpc.health.v1 for the server ("") and the service, and reflection."""

    def __init__(
        self, servicer: Servicer, settings: ServerSettings, identity: tls.Reread[tls.Identity] | None = None
    ) -> None:
        self._servicer = servicer
        self._health = health.aio.HealthServicer()
        self._tls = identity
        options = [
            ("grpc.max_receive_message_length", settings.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 1),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.server_handshake_timeout_ms", int(1000 * tls.HANDSHAKE_SECONDS)),
            ("grpc.max_concurrent_streams", max(FEWEST_STREAMS, settings.max_concurrency)),
            ("grpc.max_allowed_incoming_connections", max(1, settings.max_connections // tuning.LISTENERS)),
        ]
        handlers = (_handlers(servicer), *reflection.handlers(SERVICE))
        with tuning.patient_threads():
            self._listeners = [grpc.aio.server(options=options) for _ in range(tuning.LISTENERS)]
        for listener in self._listeners:
            listener.add_generic_rpc_handlers(handlers)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, listener)

    async def start(self, host: str, port: int) -> None:
        """Listen. A port that others share as well is not refused. Raises OSError if the port cannot be used."""
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        with tuning.patient_threads():
            for listener in self._listeners:
                try:
                    if self._tls is None:
                        listener.add_insecure_port(address)
                    else:
                        listener.add_secure_port(address, credentials(self._tls))
                except RuntimeError as error:
                    raise OSError(f"port {port} cannot be used for gRPC: {error}") from None
                await listener.start()

    async def report_health(self) -> None:
        """Report to grpc.health.v1 whether the model is ready now."""
        serving = health_pb2.HealthCheckResponse.SERVING
        status = serving if self._servicer.questions.ready() else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", SERVICE):
            await self._health.set(service, status)

    async def stop(self, seconds: float) -> None:
        """Answer the requests under way, and close, within the given seconds or the time needed to say goodbye.

        grpc cancels a call that arrives while it closes. So answers are held back for a moment, until every client
        waits for one. Then the clients are told to leave, and are answered.
        """
        self._servicer.hold()
        await asyncio.sleep(HOLD_SECONDS)
        stopping = asyncio.gather(
            *[listener.stop(max(HOLD_SECONDS, seconds - 2 * HOLD_SECONDS)) for listener in self._listeners]
        )
        await asyncio.sleep(HOLD_SECONDS)
        self._servicer.let_go()
        await stopping
