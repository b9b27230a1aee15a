"""Load a bundle's engines, and select the one that answers a request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from tabserve.arrays import Array, Features
from tabserve.bundle import libraries
from tabserve.bundle.errors import BundleError
from tabserve.bundle.loading import Bundle
from tabserve.bundle.manifest import EngineName, EngineRange, ModelInfo
from tabserve.engines import parity
from tabserve.engines.engine import Engine
from tabserve.engines.estimators import read
from tabserve.engines.lightgbm import LightGBMEngine
from tabserve.engines.onedal import OneDALEngine
from tabserve.engines.onnxruntime import OnnxEngine
from tabserve.engines.sklearn import SklearnEngine
from tabserve.engines.xgboost import XGBoostEngine

CONTRIBUTIONS = "contributions"


class EngineSet:
    """The engines that serve one bundle.

    outputs: the outputs that can be asked for. dropped: one sentence for each engine of the plan that is not used.
    """

    def __init__(self, engines: Sequence[Engine], plan: Sequence[EngineRange], dropped: Sequence[str] = ()) -> None:
        """engines: the native one first; plan: ranges of rows, ascending from 0."""
        self._native = engines[0]
        self._by_name = {engine.name: engine for engine in engines}
        self._plan = [(part.from_rows, self._by_name.get(part.engine, self._native)) for part in reversed(plan)]
        self._explained = {engine.name: Explained(engine, self._native) for engine in engines[1:]}
        self.outputs = frozenset[str]().union(*(engine.outputs for engine in engines))
        self.dropped = list(dropped)

    @property
    def names(self) -> tuple[str, ...]:
        """The engines in use, the native one first."""
        return tuple(self._by_name)

    def select(self, rows: int, outputs: Sequence[str]) -> Engine:
        """The engine for a request of this many rows: the plan's if it computes these outputs, otherwise the native.

        The native engine only adds contributions to the outputs of the plan's, so that these are the same with and
        without them. The engine depends only on the two arguments. Raises KeyError for an output no engine computes.
        """
        for from_rows, engine in self._plan:
            if rows >= from_rows:
                if engine.outputs.issuperset(outputs):
                    return engine
                explained = self._explained.get(engine.name)
                if explained is not None and len(outputs) > 1 and explained.outputs.issuperset(outputs):
                    return explained
                break
        if not self.outputs.issuperset(outputs):
            raise KeyError(next(name for name in outputs if name not in self.outputs))
        return self._native

    def named(self, name: str, outputs: Sequence[str]) -> Engine | None:
        """The engine of this name, if it is in use and computes these outputs, alone or with native contributions."""
        engine = self._by_name.get(name)
        if engine is None or engine.outputs.issuperset(outputs):
            return engine
        explained = self._explained.get(name)
        return explained if explained is not None and explained.outputs.issuperset(outputs) else None


class Explained:
    """A converted engine, with contributions from the native one."""

    def __init__(self, engine: Engine, native: Engine) -> None:
        self.name: str = engine.name
        self.outputs = engine.outputs | ({CONTRIBUTIONS} & native.outputs)
        self.row_independent = engine.row_independent and native.row_independent
        self._engine, self._native = engine, native

    def run(self, features: Features, outputs: Sequence[str]) -> dict[str, Array]:
        """The named outputs for every row. Raises whatever the libraries raise."""
        others = [name for name in outputs if name != CONTRIBUTIONS]
        return self._engine.run(features, others) | self._native.run(features, (CONTRIBUTIONS,))


class Deferred:
    """The native engine of a bundle whose default outputs another engine computes, loaded by the first call."""

    row_independent = False

    def __init__(self, info: ModelInfo, load: Callable[[], Engine]) -> None:
        self.name: str = info.native
        self.outputs = frozenset(info.outputs)
        self._load = load
        self._lock = threading.Lock()
        self._engine: Engine | None = None

    def run(self, features: Features, outputs: Sequence[str]) -> dict[str, Array]:
        """The named outputs for every row. Raises BundleError when the model can't be loaded."""
        with self._lock:
            self._engine = self._engine or self._load()
        return self._engine.run(features, outputs)


def load(bundle: Bundle, *, threads: int = 1) -> EngineSet:
    """Load the engines that a bundle's plan needs and compare them with its reference rows.

    A converted form that can't be loaded, or disagrees, is dropped, and the native engine takes its place. The native
    engine is loaded now if the plan, a default output or the schema's reasons need it. Otherwise the first request for
    an output that only it computes loads it. Raises BundleError if it can't be loaded or disagrees.
    """
    info = bundle.manifest.model
    converted, dropped = _converted(bundle, threads)
    native: Engine
    if converted is None or _needs_native(bundle, converted):
        native = load_native(bundle, threads)
    else:
        native = Deferred(info, lambda: load_native(bundle, threads))
    return EngineSet([native, *([converted] if converted else [])], info.engines, dropped)


def load_native(bundle: Bundle, threads: int) -> Engine:
    """The engine of the library that trained the model. Raises BundleError, also if it disagrees."""
    engine = open_engine(bundle, bundle.manifest.model.native, threads)
    problem = parity.disagreement(engine, bundle.reference, bundle.manifest.model)
    if problem is not None:
        raise BundleError(
            bundle.manifest.model.file,
            f"{engine.name} does not repeat the reference answers: {problem}",
            "Save the bundle again with the installed libraries.",
        )
    return engine


def open_engine(bundle: Bundle, name: EngineName, threads: int) -> Engine:
    """One engine of a bundle, not yet compared with its reference rows. Raises BundleError."""
    info = bundle.manifest.model
    libraries.verify(libraries.OF_ENGINE[name], bundle.manifest.libraries)
    file, features = bundle.read(str(info.onnx) if name == "onnxruntime" else info.file), bundle.reference.features
    if name == "onnxruntime":
        return OnnxEngine(file, info, threads=threads, reference=features)
    if name == "onedal":
        return OneDALEngine(file, info)
    if name == "xgboost":
        return XGBoostEngine(file, info, threads=threads, reference=features)
    if name == "lightgbm":
        return LightGBMEngine(file, info, threads=threads, reference=features)
    model = read(file, info.format, bundle.trusted)
    return SklearnEngine(model, info, threads=threads, reference=features)


def _converted(bundle: Bundle, threads: int) -> tuple[Engine | None, list[str]]:
    info = bundle.manifest.model
    name = next((part.engine for part in info.engines if part.engine != info.native), None)
    if name is None or (name == "onnxruntime" and info.onnx is None):
        return None, []
    try:
        engine = open_engine(bundle, name, threads)
    except BundleError as error:
        return None, [f"{name}: not used: {error}"]
    problem = parity.disagreement(engine, bundle.reference, info)
    return (engine, []) if problem is None else (None, [f"{name}: not used: {problem}"])


def _needs_native(bundle: Bundle, converted: Engine) -> bool:
    info, reasons = bundle.manifest.model, bundle.schema.outputs.reasons
    needed = {*info.default_outputs, *(["contributions"] if reasons else [])} - {"label"}
    return any(part.engine == info.native for part in info.engines) or not needed <= converted.outputs
