"""Make our models kserve.Model, and serve hooks on these with our server.

This is the only module that imports the KServe SDK, which takes long; the services import it only if they need it.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import math
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import kserve
import msgspec
import numpy as np
import orjson
from kserve.errors import InvalidInput, ModelNotReady
from kserve.protocol.infer_type import RequestedOutput as KServeRequestedOutput
from kserve.protocol.infer_type import to_http_parameters
from kserve.utils.utils import generate_uuid

from tabserve.arrays import Array
from tabserve.inference import server
from tabserve.inference.arms import ARM, SHADOW, arm
from tabserve.inference.bounds import UNBOUNDED
from tabserve.inference.content_types import CONTENT_TYPE, check_output, check_request, misfit
from tabserve.inference.contract import Contract
from tabserve.inference.deadlines import TIMEOUT, deadline
from tabserve.inference.errors import InvalidRequest, NotReady
from tabserve.inference.metrics import Metrics
from tabserve.inference.model import ON_ERROR, Context, Model
from tabserve.inference.request_ids import TRACE_HEADERS
from tabserve.inference.settings import ServerSettings
from tabserve.inference.tensors import (
    DATATYPES,
    InferRequest,
    InferResponse,
    ModelMetadata,
    RequestedOutput,
    Tensor,
    TensorSpec,
)

_CONTEXT: ContextVar[Context | None] = ContextVar("context", default=None)
"""The request's context with our server; the SDK passes on only headers, and nothing back."""


class KServeModel(kserve.Model):  # type: ignore[misc]  # the SDK is untyped
    """One of our models as a model of the SDK; subclass it to add `preprocess` or `postprocess`.

    core: the model that predicts, on tensors.
    """

    def __init__(self, core: Model) -> None:
        super().__init__(core.metadata.name)
        self.core = core
        self.engine = True  # makes the stock server await start_engine() in its own event loop
        self.ready = True

    async def start_engine(self) -> None:
        """Begin the model's background work in the server's event loop."""
        await self.core.start()

    async def healthy(self) -> bool:
        """Whether a request sent now would be predicted."""
        return self.core.ready

    def get_input_types(self) -> list[dict[str, Any]]:
        """The input tensors, for metadata."""
        return _described(self.core.metadata.inputs)

    def get_output_types(self) -> list[dict[str, Any]]:
        """The output tensors, for metadata."""
        return _described(self.core.metadata.outputs)

    async def __call__(self, body: Any, *more: Any, **named: Any) -> Any:
        """Answer as the SDK does, but refuse unsupported content types before any hook. Raises the SDK's errors."""
        if isinstance(body, kserve.InferRequest):
            _check_content_types(body)
        return await super().__call__(body, *more, **named)

    async def predict(
        self,
        payload: kserve.InferRequest | dict[str, Any],
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> kserve.InferResponse | dict[str, Any]:
        """Predict over V2 if the payload is an InferRequest, over V1 if it is a dict. Raises the SDK's errors."""
        context = _CONTEXT.get() or _context(headers or {})
        try:
            if isinstance(payload, dict):
                answer: dict[str, Any] = orjson.loads(await self.core.predict(orjson.dumps(payload), context))
                return answer
            return kserve_response(payload, await self.core.infer(our_request(payload), context), self.core.metadata)
        except InvalidRequest as error:
            raise InvalidInput(error.message) from None
        except NotReady as error:
            raise ModelNotReady(self.name, error.message) from None


class Hooked:
    """A KServeModel with our server: every request goes through its preprocess, predict and postprocess."""

    bounds = UNBOUNDED
    """What a hook takes, and gives, is its own affair."""

    def __init__(self, model: KServeModel) -> None:
        self._model = model
        self.metadata = msgspec.structs.replace(model.core.metadata, contract=Contract())
        self.headers = model.core.headers

    @property
    def ready(self) -> bool:
        """Whether a request sent now would be predicted."""
        return bool(self._model.ready) and self._model.core.ready

    async def start(self) -> None:
        """Begin the model's background work."""
        await self._model.core.start()

    async def stop(self) -> None:
        """End the model's background work."""
        await self._model.core.stop()

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        """Answer a V2 request through the hooks."""
        answer = await self._call(kserve_request(request, self.metadata), context)
        parameters = to_http_parameters(answer.parameters or {})
        return InferResponse(tuple(_our_tensor(output) for output in answer.outputs), parameters)

    async def predict(self, body: bytes, context: Context) -> bytes:
        """Answer a V1 request through the hooks."""
        try:
            payload = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"the body is not valid JSON: {error}") from None
        return orjson.dumps(await self._call(payload, context), option=orjson.OPT_SERIALIZE_NUMPY)

    async def _call(self, payload: Any, context: Context) -> Any:
        """The answer, computed in a task: gRPC would never answer a request whose own task a hook cancels."""
        task = asyncio.create_task(self._through_hooks(payload, context))
        try:
            return await task
        except InvalidInput as error:
            raise InvalidRequest(str(error)) from None
        except ModelNotReady as error:
            raise NotReady(str(error)) from None
        except asyncio.CancelledError as error:
            if task.cancelling():  # the client has gone away
                raise
            raise RuntimeError("a hook awaited something that was cancelled").with_traceback(
                error.__traceback__
            ) from None

    async def _through_hooks(self, payload: Any, context: Context) -> Any:
        _CONTEXT.set(context)  # for this task only
        answer, _ = await self._model(payload, headers={**context.trace, **_timeout(context)})
        return answer


def _timeout(context: Context) -> dict[str, str]:
    """The milliseconds that are left for an answer, as the header that says so; nothing without a deadline."""
    left = context.remaining()
    return {} if left == math.inf else {TIMEOUT: str(int(1000 * left))}


def run(core: Model, settings: ServerSettings, metrics: Metrics, base: type[KServeModel]) -> None:
    """Serve the model with the hooks of `model_class`. Raises ValueError if that is not an adapter."""
    server.run(Hooked(_adapter(core, settings, base)), settings, metrics)


def _adapter(core: Model, settings: ServerSettings, base: type[KServeModel]) -> KServeModel:
    """The class in `settings.model_class`, on the model. Raises ValueError if it is not a subclass of `base`."""
    module, _, name = settings.model_class.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"model_class: expected module:Class, got {settings.model_class!r}: {error}") from None
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise ValueError(f"model_class: expected a subclass of {base.__module__}.{base.__name__}, got {found!r}")
    return found(core)


def our_request(request: kserve.InferRequest) -> InferRequest:
    """The SDK's request as ours. Raises InvalidRequest if shape, datatype and data disagree."""
    outputs = tuple(RequestedOutput(output.name) for output in request.request_outputs or ())
    parameters = to_http_parameters(request.parameters or {})
    return InferRequest(tuple(_our_tensor(tensor) for tensor in request.inputs), request.id, outputs, parameters)


def _check_content_types(request: kserve.InferRequest) -> None:
    try:
        for at, tensor in enumerate(request.inputs):
            problem = misfit(_content_type(tensor), tensor.datatype)
            if problem is not None:
                raise InvalidRequest(f"input `{tensor.name}`: {problem} - at `inputs[{at}]`")
        for output in request.request_outputs or ():
            check_output(_content_type(output), output.name)
        check_request(_content_type(request), [(tensor.datatype, tensor.shape) for tensor in request.inputs])
    except InvalidRequest as error:
        raise InvalidInput(error.message) from None


def _content_type(parametrised: Any) -> object:
    return to_http_parameters(parametrised.parameters or {}).get(CONTENT_TYPE, "")


def kserve_request(request: InferRequest, metadata: ModelMetadata) -> kserve.InferRequest:
    """Our request as a request of the SDK."""
    inputs = []
    for tensor in request.inputs:
        infer_input = kserve.InferInput(tensor.name, list(tensor.array.shape), tensor.datatype)
        infer_input.set_data_from_numpy(tensor.array, binary_data=True)
        inputs.append(infer_input)
    outputs = [KServeRequestedOutput(output.name) for output in request.outputs] or None
    return kserve.InferRequest(
        metadata.name, inputs, request.id, parameters=dict(request.parameters), request_outputs=outputs
    )


def kserve_response(
    request: kserve.InferRequest, response: InferResponse, metadata: ModelMetadata
) -> kserve.InferResponse:
    """Our response as the SDK's response to the given request."""
    outputs = []
    for tensor in response.outputs:
        output = kserve.InferOutput(tensor.name, list(tensor.array.shape), tensor.datatype)
        output.set_data_from_numpy(_encoded(tensor.array), binary_data=False)
        outputs.append(output)
    return kserve.InferResponse(
        request.id or generate_uuid(),
        metadata.name,
        outputs,
        model_version=metadata.versions[-1],
        parameters=dict(response.parameters),
        use_binary_outputs=request.use_binary_outputs,
        requested_outputs=request.request_outputs,
    )


def _our_tensor(tensor: kserve.InferInput | kserve.InferOutput) -> Tensor:
    if tensor.datatype not in DATATYPES:
        raise InvalidRequest(f"input `{tensor.name}`: expected a datatype of {', '.join(DATATYPES)}")
    try:
        array: Array = tensor.as_numpy()
    except (ValueError, TypeError, OverflowError):
        raise InvalidRequest(f"input `{tensor.name}`: shape, datatype and data do not fit each other") from None
    return Tensor(tensor.name, tensor.datatype, _encoded(array) if tensor.datatype == "BYTES" else array)


def _encoded(array: Array) -> Array:
    """BYTES elements as bytes."""
    if array.dtype.kind not in "OUS":
        return array
    encoded = np.empty(array.shape, object)
    encoded.ravel()[:] = [e.encode() if isinstance(e, str) else bytes(e) for e in array.ravel().tolist()]
    return encoded


def _described(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    return [{"name": s.name, "datatype": s.datatype, "shape": list(s.shape)} for s in specs]


def _context(headers: Mapping[str, str]) -> Context:
    timeout = headers.get(TIMEOUT)
    trace = {name: headers[name] for name in TRACE_HEADERS if name in headers}
    came = arm(trace.get(SHADOW), trace.get(ARM))
    return Context(deadline(timeout.encode() if timeout else None), trace, on_error=headers.get(ON_ERROR, ""), arm=came)
