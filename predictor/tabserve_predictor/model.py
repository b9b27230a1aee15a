"""The predictor as a plain class, which turns tensors into tensors with a bundle's engines."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import msgspec
import orjson

from tabserve import engines
from tabserve.arrays import Features, rows, take
from tabserve.bundle import Bundle, libraries
from tabserve.bundle.instances import decode_tensors
from tabserve.bundle.metadata import of_predictor
from tabserve.bundle.outputs import Outputs, of_engine
from tabserve.bundle.tensors import class_names, may_miss
from tabserve.engines import Engine, EngineSet
from tabserve.inference.bounds import LARGE_BYTES
from tabserve.inference.large import in_thread
from tabserve.inference.logs import tell
from tabserve.inference.metrics import Metrics
from tabserve.inference.model import ENGINE, PREDICTOR_RELEASE, RECORDED, VERSIONS, Context
from tabserve.inference.tensors import InferRequest, InferResponse, ModelMetadata, RequestedOutput, Tensor
from tabserve.inference.tracing import Spans
from tabserve_predictor.batching import Batcher
from tabserve_predictor.inputs import Inputs
from tabserve_predictor.instruments import Instruments
from tabserve_predictor.settings import Settings
from tabserve_predictor.threads import available

_FOLDERS = re.compile(r"(?<![\w.])/(?:[^\s/:]+/)*")
WARM_UP_ROWS = (1, 2, 16, 64)

logger = logging.getLogger(__name__)


class Predictor:
    """Answers requests for one bundle; implements tabserve.inference.model.Model."""

    def __init__(
        self,
        bundle: Bundle,
        engine_set: EngineSet,
        settings: Settings,
        metrics: Metrics,
        spans: Spans | None = None,
    ) -> None:
        info = bundle.manifest.model
        names = class_names(bundle)
        self._inputs = Inputs(info, may_miss(bundle), settings.max_rows)
        self.bounds = self._inputs.bounds
        self._outputs = Outputs(info, names)
        self._engines = engine_set
        self._instruments = Instruments(metrics, self._facts(bundle), info, names)
        self._batcher = Batcher(settings.max_batch_rows, self._instruments, spans)
        self.headers: Mapping[str, str] = {PREDICTOR_RELEASE: settings.release or bundle.digest}
        self.metadata = self._metadata(bundle, settings.model_name)
        self._with_added = lru_cache(maxsize=256)(self._chosen)
        self._versions = libraries.versions(engine_set.names)
        self.ready = True

    def _facts(self, bundle: Bundle) -> dict[str, str]:
        manifest = bundle.manifest
        wanted = of_engine(manifest.model.default_outputs)
        starts = [part.from_rows for part in manifest.model.engines]
        plan = ", ".join(f"{self._engines.select(start, wanted).name} from {max(start, 1)} rows" for start in starts)
        return {"name": manifest.name, "version": manifest.version, "digest": bundle.digest, "engines": plan}

    def _metadata(self, bundle: Bundle, name: str) -> ModelMetadata:
        """The bundle's metadata, with the engines that are used here, and those that are not."""
        metadata = of_predictor(bundle, name)
        engines = {"engines": self._facts(bundle)["engines"], **self._dropped(bundle.path)}
        return msgspec.structs.replace(metadata, properties=metadata.properties | engines)

    def _dropped(self, folder: Path) -> dict[str, str]:
        """The engines that are not used, and why, without any path on this machine."""
        reasons = "; ".join(self._engines.dropped)
        for known in (folder, folder.absolute(), folder.resolve()):
            reasons = reasons.replace(f"{known}/", "")
        return {"engines_dropped": _FOLDERS.sub("", reasons)} if reasons else {}

    async def start(self) -> None:
        """Do nothing, because nothing runs in the background."""

    async def stop(self) -> None:
        """Do nothing, because nothing runs in the background."""

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        """Answer a V2 request. Raises InvalidRequest, RequestTooLarge, DeadlineExceeded, or what the engine raises."""
        features = self._inputs.features(request.inputs)
        names = self._outputs.requested(request.outputs)
        if RECORDED in request.parameters:
            return await self._recorded(features, names, str(request.parameters[RECORDED]), context)
        return InferResponse(await self.answer(features, names, context))

    async def answer(self, features: Features, names: Sequence[str], context: Context) -> tuple[Tensor, ...]:
        """The named outputs for every row, from the engine that serves requests of this size."""
        count = rows(features)
        if not count:
            return self._outputs.empty(names)
        return await self._run(self._engines.select(count, of_engine(names)), features, names, context)

    async def _run(
        self, engine: Engine, features: Features, names: Sequence[str], context: Context
    ) -> tuple[Tensor, ...]:
        computed = await self._batcher.run(engine, features, of_engine(tuple(names)), context)
        return self._outputs.tensors(names, computed)

    async def _recorded(
        self, features: Features, names: tuple[str, ...], added: str, context: Context
    ) -> InferResponse:
        """The named outputs and the added ones that change no answer, and what answered."""
        count = rows(features)
        if not count:
            return InferResponse(self._outputs.empty(names))
        engine, names = self._with_added(count, names, added)
        tensors = await self._run(engine, features, names, context)
        return InferResponse(tensors, {ENGINE: engine.name, VERSIONS: self._versions})

    def _chosen(self, count: int, names: tuple[str, ...], added: str) -> tuple[Engine, tuple[str, ...]]:
        """The engine for the named outputs, and the outputs that it computes of these and the added ones."""
        more = self._outputs.requested([RequestedOutput(name) for name in added.split(",")]) if added else ()
        every = tuple(dict.fromkeys((*names, *more)))
        engine, whole = (self._engines.select(count, of_engine(wanted)) for wanted in (names, every))
        if whole.name == engine.name or names == ("contributions",):  # which are the native engine's anyway
            return whole, every
        return engine, tuple(name for name in every if engine.outputs.issuperset(of_engine((name,))))

    async def predict(self, body: bytes, context: Context) -> bytes:
        """Answer a V1 body, `{"instances": [[…], …]}` or named features, with `{"predictions": […]}` from `predict`."""
        if len(body) > LARGE_BYTES:
            inputs = await in_thread(partial(decode_tensors, body, self.bounds))
        else:
            inputs = decode_tensors(body, self.bounds)
        predictions = await self.predictions(inputs, context) if inputs else []
        return orjson.dumps({"predictions": predictions})

    async def predictions(self, inputs: Sequence[Tensor], context: Context) -> list[Any]:
        """The model's `predict` for every row, as JSON values."""
        (predicted,) = await self.answer(self._inputs.features(inputs), ("predict",), context)
        values: list[Any] = predicted.array.tolist()
        return values


def load(bundle: Bundle, settings: Settings, metrics: Metrics, spans: Spans | None = None) -> Predictor:
    """The predictor for a bundle, warm: every engine of the plan has predicted. Raises BundleError."""
    threads = settings.threads or available()
    engine_set = engines.load(bundle, threads=threads)
    for reason in engine_set.dropped:
        tell(logger, logging.WARNING, "engine_dropped", f"engine not used: {reason}")
    model = Predictor(bundle, engine_set, settings, metrics, spans)
    _warm_up(bundle, engine_set)
    plan = model.metadata.properties["engines"]
    message = f"loaded {bundle.digest} with {threads} threads; {plan}"
    tell(logger, logging.INFO, "loaded", message, digest=bundle.digest, threads=threads, engines=plan)
    return model


def _warm_up(bundle: Bundle, engine_set: EngineSet) -> None:
    outputs = of_engine(bundle.manifest.model.default_outputs)
    for count in WARM_UP_ROWS:
        features = take(bundle.reference.features, slice(0, count))
        engine_set.select(count, outputs).run(features, outputs)
