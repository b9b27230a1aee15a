"""The transformer as a plain class, which turns records into tensors, and the predictor's answers into decisions."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from typing import NamedTuple

from tabserve import engines
from tabserve.bundle import Bundle
from tabserve.bundle.metadata import of_transformer
from tabserve.bundle.model_input import Preprocess
from tabserve.bundle.tensors import class_names
from tabserve.decision_log.entry import Log
from tabserve.inference import tls
from tabserve.inference.bounds import LARGE_BYTES
from tabserve.inference.errors import InferenceError, InvalidRequest, quoted
from tabserve.inference.large import in_thread
from tabserve.inference.metrics import Gauge, Metrics
from tabserve.inference.model import TRANSFORMER_RELEASE, Context
from tabserve.inference.tensors import (
    DATATYPE_OF,
    InferRequest,
    InferResponse,
    Parameters,
    RequestedOutput,
    Tensor,
)
from tabserve.inference.tracing import Spans
from tabserve.schema.decisions import CODES, Decisions
from tabserve.schema.misfits import nearest
from tabserve_transformer import record_ids
from tabserve_transformer.asking import Asking
from tabserve_transformer.feature_bins import FeatureBins
from tabserve_transformer.inputs import Inputs, Taken
from tabserve_transformer.instruments import Instruments
from tabserve_transformer.predictor_client.addresses import ClientOptions
from tabserve_transformer.predictor_client.client import PredictorClient, RemotePredictor
from tabserve_transformer.predictor_client.traced import TracedPredictor
from tabserve_transformer.record_answers import RecordAnswers, requests, sifted_tensors
from tabserve_transformer.recording import Recording
from tabserve_transformer.settings import Settings, host_and_port


class _Asked(NamedTuple):
    """What the predictor is asked for, and the names that are decided with its answer."""

    outputs: tuple[RequestedOutput, ...]
    decided: Sequence[str]


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
        """log: of decisions. Raises BundleError if it needs a setting."""
        model = bundle.manifest.model
        classes = class_names(bundle)
        self._predictor = predictor
        self._inputs = Inputs(
            bundle, preprocess, settings.max_rows, with_columns=log is not None or settings.feature_bins
        )
        self.bounds = self._inputs.bounds
        self._decisions = Decisions(bundle.schema, model, classes)
        release = settings.release or bundle.digest
        self._id = bundle.schema.id
        self._own = (*model.outputs, *(["label"] if classes else []))
        self._added = (*([self._id] if self._id else []), *self._decisions.names)
        self._default = (*model.default_outputs, *self._added)
        self._asks = lru_cache(maxsize=64)(self._asked)
        self._records = RecordAnswers(self._decisions, classes, bundle.schema.outputs.targets, self._id)
        self._whole = _Asked(self._records.needs, self._records.names)
        facts = {"name": bundle.manifest.name, "version": bundle.manifest.version, "digest": bundle.digest}
        decisions = self._decisions
        self._instruments = Instruments(metrics, facts, decisions.possible, probability=decisions.of_probability)
        self._asking = Asking(predictor, self._decisions, self._instruments, release)
        self._bins = FeatureBins(bundle, metrics) if settings.feature_bins else None
        self._recording = None if log is None else Recording(bundle, self._decisions, log, settings)
        self.headers: Mapping[str, str] = {TRANSFORMER_RELEASE: release}
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
        tensors = await self._made(taken, self._asks(names), names, context)
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
        tensors = await self._made(taken, self._whole, records.names, context)
        if taken.places is None:
            return records.encode(tensors)
        return records.encode_sifted(tensors, taken.places.tolist(), taken.faults)

    async def _made(self, taken: Taken, asked: _Asked, names: Sequence[str], context: Context) -> dict[str, Tensor]:
        """The predictor's tensors, ids and decisions, which the names are among."""
        if self._recording is not None and taken.columns is not None:
            made = await self._recorded(self._recording, taken, asked, names, context)
        else:
            tensors = (await self._asking.predict(taken.tensors, asked.outputs, names, context)).tensors
            made = tensors | self._decide(taken, tensors, asked.decided, names, context)
        if self._bins is not None and taken.columns is not None:
            self._bins.count(taken.columns)
        return made

    async def _recorded(
        self, recording: Recording, taken: Taken, asked: _Asked, names: Sequence[str], context: Context
    ) -> dict[str, Tensor]:
        """The same, and put into the log of decisions; what only the log needs fails no request."""
        predicted = await self._asking.predict(taken.tensors, asked.outputs, names, context, recording.parameters)
        if recording.explains(names, predicted):
            with suppress(InferenceError):
                predicted.tensors.update(await self._asking.explain(taken.tensors, predicted.tensors, context))
        codes = [CODES] if "reasons" in asked.decided else []
        made = self._decide(taken, predicted.tensors, [*asked.decided, *codes], names, context)
        recording.put(taken, predicted, made, names, context)
        return predicted.tensors | made

    def _requested(self, outputs: Sequence[RequestedOutput]) -> tuple[str, ...]:
        if not outputs:
            return self._default
        known = (*self._own, *self._added)
        for output in outputs:
            if output.name not in known:
                hint = nearest(output.name, known)
                raise InvalidRequest(f"outputs: expected one of {', '.join(known)}; got {quoted(output.name)}{hint}")
        return tuple(dict.fromkeys(output.name for output in outputs))

    def _asked(self, names: tuple[str, ...]) -> _Asked:
        """The outputs to ask the predictor for: its own among the names, and those that decisions among them need."""
        own = [name for name in names if name in self._own]
        decided = tuple(name for name in names if name in self._decisions.names)
        return _Asked(requests((*own, *self._decisions.needs(decided))), decided)

    def _decide(
        self,
        taken: Taken,
        predicted: Mapping[str, Tensor],
        decided: Sequence[str],
        names: Sequence[str],
        context: Context,
    ) -> dict[str, Tensor]:
        """The decisions, and the ids if they are among the names."""
        made: dict[str, Tensor] = {}
        if self._id is not None and self._id in names:
            made[self._id] = record_ids.tensor(self._id, taken, context)
        if decided:
            arrays = self._decisions.decide({name: tensor.array for name, tensor in predicted.items()}, decided)
            self._instruments.decided(arrays, context.arm)
            made |= {name: Tensor(name, DATATYPE_OF[array.dtype], array) for name, array in arrays.items()}
        return made


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


def _tls(settings: Settings) -> tls.Reread[ssl.SSLContext] | None:
    if not settings.predictor_ca:
        return None
    return tls.of_client(settings.predictor_ca, settings.tls_cert, settings.tls_key)


def load(
    bundle: Bundle, settings: Settings, metrics: Metrics, log: Log | None = None, spans: Spans | None = None
) -> Transformer:
    """The transformer for a bundle, with a client for its predictor. log: of decisions. spans: made of each call.

    Raises ValueError if predictor_host is not a host, and BundleError if the preprocessor can't be loaded, or a setting
    of the log is missing.
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
        tls=_tls(settings),
    )
    preprocess = None
    if bundle.manifest.preprocessor is not None:
        preprocess = engines.load_preprocessor(bundle)
    client = PredictorClient(target)
    ready = "Addresses of the predictor that are ready, and of this release"
    metrics.add(Gauge("tabserve_predictors_ready", ready, lambda: client.addresses.count_ready))
    predictor = client if spans is None else TracedPredictor(client, spans)
    return Transformer(bundle, predictor, settings, metrics, preprocess, log)
