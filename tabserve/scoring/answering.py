"""Answer features: the engine for one row, what it computes, and the decisions on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tabserve import engines
from tabserve.arrays import Array, Features, rows, take
from tabserve.bundle import Bundle
from tabserve.bundle.outputs import Outputs, of_engine
from tabserve.bundle.tensors import class_names
from tabserve.schema import answers
from tabserve.schema.decisions import Decisions

_CONTRIBUTIONS = ("contributions",)


class Answer(NamedTuple):
    """The arrays of an answer [rows] by name, the engine that made them, and the request size it was chosen for."""

    arrays: dict[str, Array]
    engine: str
    rows: int


class Answering:
    """Answers the features of one bundle.

    alone: whether features are the same as for a single row in a request, so that the answers can be too.
    """

    def __init__(self, bundle: Bundle, threads: int, *, alone: bool) -> None:
        """Raises BundleError."""
        model, schema, classes = bundle.manifest.model, bundle.schema, class_names(bundle)
        self._engines = engines.load(bundle, threads=threads)
        self._outputs, self._decisions = Outputs(model, classes), Decisions(schema, model, classes)
        self._alone = alone
        self.names = answers.names(self._decisions.names, classes, schema.outputs.targets)
        self._needed = (*(["predict"] if schema.outputs.targets else []), *self._decisions.needs(self.names))

    def __call__(self, features: Features) -> Answer:
        """The answers for at least one row."""
        wanted = of_engine(self._needed)
        count, engine = 1, self._engines.select(1, wanted)
        if not (self._alone and engine.row_independent):
            count = rows(features)
            engine = self._engines.select(count, wanted)
        outputs = self._run(engine, features, self._needed)
        if "reasons" in self.names and "contributions" not in outputs:
            explained = self._decisions.explained(outputs)
            if explained is not None and len(explained):
                explaining = self._engines.select(count, _CONTRIBUTIONS)
                outputs |= self._run(explaining, take(features, explained), _CONTRIBUTIONS)
        made = self._decisions.decide(outputs, [name for name in self.names if name != "predict"])
        arrays = {name: made[name] if name in made else outputs[name] for name in self.names}
        return Answer(arrays, engine.name, count)

    def _run(self, engine: engines.Engine, features: Features, names: Sequence[str]) -> dict[str, Array]:
        computed = engine.run(features, of_engine(tuple(names)))
        return {tensor.name: tensor.array for tensor in self._outputs.tensors(names, computed)}
