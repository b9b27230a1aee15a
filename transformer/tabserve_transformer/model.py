"""The transformer as a plain class, which turns records into tensors, and the predictor's answers into decisions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial

from tabserve import engines
from tabserve.bundle import Bundle
from tabserve.bundle.metadata import of_transformer
from tabserve.bundle.model_input import Preprocess
from tabserve.bundle.tensors import class_names
from tabserve.decision_log.entry import Log
from tabserve.inference.bounds import LARGE_BYTES
from tabserve.inference.errors import InferenceError, InvalidRequest, quoted
from tabserve.inference.large import in_thread
from tabserve.inference.metrics import Metrics
from tabserve.inference.model import PREDICTOR_RELEASE, TRANSFORMER_RELEASE, Context
from tabserve.inference.tensors import (
    DATATYPE_OF,
    InferRequest,
    InferResponse,
    Parameters,
    RequestedOutput,
    Tensor,
)
from tabserve.schema.decisions import Decisions
from tabserve.schema.misfits import nearest
from tabserve_transformer import record_ids
from tabserve_transformer.inputs import Inputs, Taken
from tabserve_transformer.instruments import Instruments
from tabserve_transformer.predictor_client.addresses import ClientOptions
from tabserve_transformer.predictor_client.client import PredictorClient, RemotePredictor
from tabserve_transformer.record_answers import RecordAnswers, requests, sifted_tensors
from tabserve_transformer.settings import Settings, host_and_port

_CONTRIBUTIONS = requests(("contributions",))


class Transformer:
    """Answers requests for one bundle through a predictor; implements tabserve.inference.model.Model."""

    def __init__(
        self,
        bundle: Bundle,
        predictor: RemotePredictor,
        settings: Settings,
        metrics: Metrics,
        preprocess: Preprocess | None = None,
        log: Log | None = None,
    ) -> None:
        model = bundle.manifest.model
        classes = class_names(bundle)
        self._predictor = predictor
        self._log = log
        self._inputs = Inputs(bundle, preprocess, settings.max_rows)
        self.bounds = self._inputs.bounds
        self._decisions = Decisions(bundle.schema, model, classes)
        self._release = settings.release or bundle.digest
        self._id = bundle.schema.id
        self._own = (*model.outputs, *(["label"] if classes else []))
        self._added = (*([self._id] if self._id else []), *self._decisions.names)
        self._default = (*model.default_outputs, *self._added)
        self._asks = lru_cache(maxsize=64)(self._asked)
        self._records = RecordAnswers(self._decisions, classes, bundle.schema.outputs.targets, self._id)
        facts = {"name": bundle.manifest.name, "version": bundle.manifest.version, "digest": bundle.digest}
        self._instruments = Instruments(metrics, facts, probability=self._decisions.of_probability)
        self.headers: Mapping[str, str] = {TRANSFORMER_RELEASE: self._release}
        self.metadata = of_transformer(bundle, settings.model_name)

    @property
    def ready(self) -> bool:
        """Whether a predictor of the same release has answered recently."""
        return self._predictor.ready

    async def start(self) -> None:
        """Start looking for the predictor."""
        await self._predictor.start()

    async def stop(self) -> None:
        """Stop looking for the predictor, and close its connections."""
        await self._predictor.stop()

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        """Answer V2 requests of records as columns, or of the predictor's tensors, with its outputs and decisions.

        Raises InvalidRequest, RequestTooLarge, and what the predictor's client raises.
        """
        names = self._requested(request.outputs)
        if _sifts(request.parameters, context):
            taken = await in_thread(partial(self._inputs.sift_tensors, request.inputs))
        else:
            taken = self._inputs.from_tensors(request.inputs)
        tensors = await self._identified(taken, self._asks(names), names, context)
        tensors |= self._decide(tensors, [name for name in names if name not in tensors])
        outputs = tuple(tensors[name] for name in names)
        if taken.places is None:
            return InferResponse(outputs)
        return InferResponse((*outputs, *sifted_tensors(taken.places, taken.faults)))

    async def predict(self, body: bytes, context: Context) -> bytes:
        """Answer a V1 body, `{"instances": [{…}]}`, with `{"predictions": [{"decision", "score", …}]}`.

        A prediction has `decision`, `score`, `label` and `reasons`. A regression has no label, and without bands in its
        schema no decision. If it has several values, `predict` holds them by name. Raises the same errors as `infer`.
        """
        records = self._records
        if _sifts({}, context):
            taken = await in_thread(partial(self._inputs.sift_body, body))
        elif len(body) > LARGE_BYTES:
            taken = await in_thread(partial(self._inputs.from_body, body))
        else:
            taken = self._inputs.from_body(body)
        tensors = await self._identified(taken, records.needs, records.names, context)
        tensors |= self._decide(tensors, records.names)
        if taken.places is None:
            return records.encode(tensors)
        return records.encode_sifted(tensors, taken.places.tolist(), taken.faults)

    async def _identified(
        self, taken: Taken, outputs: tuple[RequestedOutput, ...], names: Sequence[str], context: Context
    ) -> dict[str, Tensor]:
        """The predictor's tensors that are needed for the names, and the ids if they are among them."""
        tensors = await self._predict(taken.tensors, outputs, names, context)
        if self._id is not None and self._id in names:
            places = range(len(taken.tensors[0].array)) if taken.places is None else taken.places.tolist()
            tensors[self._id] = record_ids.tensor(self._id, taken.ids, places, context)
        return tensors

    def _requested(self, outputs: Sequence[RequestedOutput]) -> tuple[str, ...]:
        if not outputs:
            return self._default
        known = (*self._own, *self._added)
        for output in outputs:
            if output.name not in known:
                hint = nearest(output.name, known)
                raise InvalidRequest(f"outputs: expected one of {', '.join(known)}; got {quoted(output.name)}{hint}")
        return tuple(dict.fromkeys(output.name for output in outputs))

    async def _predict(
        self,
        inputs: tuple[Tensor, ...],
        outputs: tuple[RequestedOutput, ...],
        names: Sequence[str],
        context: Context,
    ) -> dict[str, Tensor]:
        """The predictor's answers to these outputs, and to what reasons need if they are among the names.

        If only some bands have reasons, contributions are asked for in a second call, for only the rows in these bands.
        """
        tensors = await self._ask(inputs, outputs, context)
        if "reasons" in names and "contributions" not in tensors:
            explained = self._decisions.explained({name: tensor.array for name, tensor in tensors.items()})
            if explained is not None and len(explained):
                some = tuple(Tensor(each.name, each.datatype, each.array[explained]) for each in inputs)
                tensors |= await self._ask(some, _CONTRIBUTIONS, context)
        return tensors

    async def _ask(
        self, inputs: tuple[Tensor, ...], outputs: tuple[RequestedOutput, ...], context: Context
    ) -> dict[str, Tensor]:
        request = InferRequest(inputs, outputs=outputs)
        started = time.perf_counter()
        try:
            response = await self._predictor.infer(request, context)
        except InferenceError as error:
            self._instruments.waited(time.perf_counter() - started, error.http_status)
            raise
        self._instruments.waited(time.perf_counter() - started, 200)
        context.response_headers[PREDICTOR_RELEASE] = self._release
        return {tensor.name: tensor for tensor in response.outputs}

    def _asked(self, names: tuple[str, ...]) -> tuple[RequestedOutput, ...]:
        """The outputs to ask the predictor for: its own among the names, and those that decisions among them need."""
        own = [name for name in names if name in self._own]
        decided = [name for name in names if name in self._decisions.names]
        return requests((*own, *self._decisions.needs(decided)))

    def _decide(self, predicted: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        if not names:
            return {}
        made = self._decisions.decide({name: tensor.array for name, tensor in predicted.items()}, names)
        self._instruments.decided(made)
        return {name: Tensor(name, DATATYPE_OF[array.dtype], array) for name, array in made.items()}


def _sifts(parameters: Parameters, context: Context) -> bool:
    """Whether good records are answered although others are bad: the parameter `on_error`, or the header's.

    Raises InvalidRequest for anything but `fail` and `record`.
    """
    if not parameters and not context.on_error:
        return False
    chosen = parameters.get("on_error", context.on_error or "fail")
    if chosen not in ("fail", "record"):
        raise InvalidRequest(f'on_error: expected "fail" or "record", got {quoted(str(chosen))}')
    return chosen == "record"


def load(bundle: Bundle, settings: Settings, metrics: Metrics, log: Log | None = None) -> Transformer:
    """The transformer for a bundle, with a client for its predictor; its decisions go to the log.

    Raises ValueError if predictor_host is not a host, and BundleError if the preprocessor can't be loaded.
    """
    host, port = host_and_port(settings.predictor_host)
    target = ClientOptions(
        host=host,
        port=port,
        model_name=settings.model_name or bundle.manifest.name,
        release=settings.release or bundle.digest,
        timeout=settings.predictor_timeout,
        max_bytes=settings.max_predictor_bytes,
        refresh=settings.predictor_refresh,
    )
    preprocess = None
    if bundle.manifest.preprocessor is not None:
        preprocess = engines.load_preprocessor(bundle)
    return Transformer(bundle, PredictorClient(target), settings, metrics, preprocess, log)
