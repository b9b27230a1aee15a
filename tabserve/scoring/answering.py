"""Answer features: the engine for one row, what it computes, and the decisions on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tabserve import engines
from tabserve.arrays import Array, Features, rows, take
from tabserve.bundle import Bundle
from tabserve.bundle.libraries import versions
from tabserve.bundle.outputs import Outputs, numeric, of_engine, recorded
from tabserve.bundle.tensors import class_names
from tabserve.schema import answers
from tabserve.schema.decisions import CODES, Decisions

_CONTRIBUTIONS = ("contributions",)


class Answer(NamedTuple):
    """The arrays of an answer [rows] by name, the engine that made them, and the request size it was chosen for.

    outputs: the model's, without contributions. codes: of the reasons, as from `Decisions`; empty if there are none.
    """

    arrays: dict[str, Array]
    engine: str
    rows: int
    outputs: Mapping[str, Array] = {}
    codes: Mapping[str, Array] = {}


class Answering:
    """Answers the features of one bundle.

    alone: whether features are the same as for a single row in a request, so that the answers can be too.
    versions: of tabserve and the engines' libraries.
    """

    def __init__(self, bundle: Bundle, threads: int, *, alone: bool) -> None:
        """Raises BundleError."""
        model, schema, classes = bundle.manifest.model, bundle.schema, class_names(bundle)
        self._engines = engines.load(bundle, threads=threads)
        self._outputs, self._decisions = Outputs(model, classes), Decisions(schema, model, classes)
        self._alone = alone
        self.versions = versions(self._engines.names)
        self._recorded = frozenset(numeric(model)) - {"contributions"}
        self._defaults = recorded(model)
        self.names = answers.names(self._decisions.names, classes, schema.outputs.targets)
        self._needed = (*(["predict"] if schema.outputs.targets else []), *self._decisions.needs(self.names))

    def __call__(self, features: Features, *, recording: bool = False) -> Answer:
        """The answers for at least one row. recording: whether also with what is only in a decision record."""
        wanted = of_engine(self._needed)
        count, engine = 1, self._engines.select(1, wanted)
        if not (self._alone and engine.row_independent):
            count = rows(features)
            engine = self._engines.select(count, wanted)
        more = [name for name in self._defaults if recording and engine.outputs.issuperset(of_engine((name,)))]
        outputs = self._run(engine, features, tuple(dict.fromkeys([*self._needed, *more])))
        if "reasons" in self.names and len(explained := self._decisions.lacking(outputs)):
            explaining = self._engines.select(count, _CONTRIBUTIONS)
            outputs |= self._run(explaining, take(features, explained), _CONTRIBUTIONS)
        decided = [name for name in self.names if name != "predict"]
        made = self._decisions.decide(outputs, [*decided, CODES] if "reasons" in decided else decided)
        arrays = {name: made[name] if name in made else outputs[name] for name in self.names}
        told = {name: array for name, array in outputs.items() if name in self._recorded}
        return Answer(arrays, engine.name, count, told, {CODES: made[CODES]} if CODES in made else {})

    def _run(self, engine: engines.Engine, features: Features, names: Sequence[str]) -> dict[str, Array]:
        computed = engine.run(features, of_engine(tuple(names)))
        return {tensor.name: tensor.array for tensor in self._outputs.tensors(names, computed)}
