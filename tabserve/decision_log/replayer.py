"""Make the logged decisions of one bundle again, with the engine that made them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from tabserve import bundle as bundles
from tabserve import engines
from tabserve.arrays import Array, Features, take
from tabserve.bundle.model_input import ModelInput, RecordFeatures, fitting
from tabserve.bundle.outputs import Outputs, of_engine
from tabserve.bundle.tensors import class_names, may_miss
from tabserve.decision_log import record
from tabserve.decision_log.comparing import ANSWERS, OUTPUTS, Difference, Differences, differences
from tabserve.decision_log.entry import Entry
from tabserve.decision_log.requests import Requests, Together
from tabserve.engines import Engine
from tabserve.inference.errors import PredictionFailed
from tabserve.schema.columns import Columns, Misfit
from tabserve.schema.decisions import Decisions
from tabserve.schema.features import derive
from tabserve.schema.schema import PREDICT
from tabserve.scoring.scorer import row_by_row

CONTRIBUTIONS = "contributions"
_TOLD = ("reasons", "codes")
_HIDDEN = {"hash": "hashed in the log", "drop": "not in the log"}
INCOMPLETE = "the other records of its request are missing"
_MISFIT = "another record of its request does not fit the schema"


class Outcome(NamedTuple):
    """What became of some records, by position: why it cannot be replayed, or what differs; the others are equal."""

    batch: pa.RecordBatch
    why: dict[int, str]
    differences: Differences


def not_replayable(batch: pa.RecordBatch, why: str) -> Outcome:
    """The outcome if none of the records can be replayed."""
    return Outcome(batch, dict.fromkeys(range(batch.num_rows), why), {})


class _Asked(NamedTuple):
    """What to make again.

    logged: the outputs that are in the log. names: the answers. answered: whether the log has any of them.
    """

    logged: tuple[str, ...]
    names: tuple[str, ...]
    answered: bool
    outputs: tuple[str, ...]


class _Asking:
    """Finds what to make again of a bundle's records."""

    def __init__(self, decisions: Decisions, columns: Sequence[str]) -> None:
        self._decisions, self._there = decisions, set(columns).intersection(ANSWERS)

    def __call__(self, batch: pa.RecordBatch) -> _Asked:
        """What to make again of records: the outputs that are logged of any.

        Answers are made if they are logged, or can be made of the outputs that are; reasons only if they are logged.
        """
        outputs, there = batch.column(OUTPUTS), self._there
        logged = tuple(field.name for field in outputs.type if _any(outputs.field(field.name)))
        valid = {name for name in ANSWERS if name in batch.schema.names and _any(batch.column(name))}
        made = {name for name in there if name not in _TOLD and set(of_engine(self._needs(name))) <= set(logged)}
        names = tuple(name for name in ANSWERS if name in there and name in valid | made)
        needed = [output for name in names for output in self._needs(name)]
        return _Asked(logged, names, bool(valid), tuple(dict.fromkeys([*logged, *needed])))

    def _needs(self, name: str) -> tuple[str, ...]:
        """The outputs that an answer is made of."""
        return (name,) if name == PREDICT else self._decisions.needs((name,))


class Replayer:
    """Makes decisions of one bundle again."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        threads: int = 1,
        allow_joblib: bool = False,
        trusted: Sequence[str] = (),
    ) -> None:
        """Verify and load a bundle as a service does.

        threads: of the model's library. allow_joblib, trusted: as for `tabserve.bundle.load`. Raises BundleError.
        """
        found = bundles.load(Path(directory), allow_joblib=allow_joblib, trusted=trusted)
        self.bundle = found
        model, classes, schema = found.manifest.model, class_names(found), found.schema
        preprocess = None if found.manifest.preprocessor is None else engines.load_preprocessor(found)
        self._alone = preprocess is None or row_by_row(preprocess, found)
        self._engines = engines.load(found, threads=threads)
        self._features = RecordFeatures(found, preprocess)
        self._accepted = ModelInput(model, may_miss(found))
        self._outputs, self._decisions = Outputs(model, classes), Decisions(schema, model, classes)
        self._columns = record.schema(found).remove_metadata()
        self._asked = _Asking(self._decisions, self._columns.names)
        kept = tuple(field for field in schema.record if field.name in schema.fields_read)
        self._needed = msgspec.structs.replace(schema, record=kept)
        self._requests: dict[str, Requests] = {}

    def replay(self, batch: pa.RecordBatch) -> Iterator[Outcome]:
        """What becomes of records of this bundle, now or when the others of their requests have come."""
        batch = batch.replace_schema_metadata(None)
        why = self.hidden(batch.schema)
        if why:
            yield not_replayable(batch, why)
            return
        for part in _alike(batch):
            yield from self._replayed(part)

    def rest(self) -> Iterator[Outcome]:
        """What becomes of the records whose requests are not whole, when there are no more."""
        for requests in self._requests.values():
            for batch in requests.given_up(every=True):
                yield not_replayable(batch, INCOMPLETE)

    def contributions(self, batch: pa.RecordBatch) -> Array | None:
        """Contributions to the score [rows, features + 1], the bias last; None if the model has none or no score.

        Raises InvalidRequest if the model cannot have accepted a record.
        """
        if CONTRIBUTIONS not in self._engines.outputs or "score" not in self._decisions.names:
            return None
        names = (*self._decisions.needs(("score", "reasons")), CONTRIBUTIONS)
        features = self._made(record.columns(batch.column("record"), self._needed))
        return self._decisions.towards_score(self._run(self._engines.select(1, of_engine(names)), features, names))

    def derived(self, batch: pa.RecordBatch) -> Columns:
        """The schema's features of records, before any preprocessor."""
        return derive(self.bundle.schema, record.columns(batch.column("record"), self._needed))

    def hidden(self, found: pa.Schema) -> str:
        """Why records with these columns cannot be replayed, "" if they can."""
        there = {field.name for field in found.field("record").type} if "record" in found.names else set[str]()
        for field in self._needed.record:
            if field.logged != "keep":
                return f"field `{field.name}`, which the model needs, is {_HIDDEN[field.logged]}"
            if field.name not in there:
                return f"field `{field.name}`, which the model needs, is not in the log"
        return ""

    def _replayed(self, batch: pa.RecordBatch) -> Iterator[Outcome]:
        """Replay records of the same engine, outputs and answers."""
        asked, name = self._asked(batch), batch.column("engine")[0].as_py()
        engine = self._engines.named(name, of_engine(asked.outputs))
        if engine is None:
            yield not_replayable(batch, _absent(name, self._engines.dropped))
        elif self._alone and engine.row_independent:
            yield self._decided(engine, asked, Together(batch, [slice(0, batch.num_rows)]), alone=True)
        else:
            requests = self._requests.setdefault(name, Requests())
            together = requests.add(batch)
            if together is not None:
                yield from self._together(name, together)
            for missing in requests.given_up():
                yield not_replayable(missing, INCOMPLETE)

    def _together(self, name: str, together: Together) -> Iterator[Outcome]:
        """Replay whole requests, those that asked for the same at once. name: the engine's."""
        alike: dict[_Asked, list[slice]] = defaultdict(list)
        for span in together.spans:
            alike[self._asked(together.batch.slice(span.start, span.stop - span.start))].append(span)
        for asked, spans in alike.items():
            part = together.part(spans)
            engine = self._engines.named(name, of_engine(asked.outputs))
            if engine is None:
                yield not_replayable(part.batch, _absent(name, self._engines.dropped))
            else:
                yield self._decided(engine, asked, part, alone=False)

    def _decided(self, engine: Engine, asked: _Asked, together: Together, *, alone: bool) -> Outcome:
        """Compare records with what is made of them again. alone: whether answers depend on no other records."""
        batch, spans = together
        columns = record.columns(batch.column("record"), self._needed)
        outcome, parts, kept = Outcome(batch, {}, {}), [], []
        for span in spans:
            features, fits, faults = fitting(_part(columns, span), self._made)
            for fault in faults:
                outcome.differences[span.start + fault.record] = [_misfit(fault)]
            if faults and not alone:
                outcome.why.update(dict.fromkeys((span.start + fits).tolist(), _MISFIT))
            elif len(fits):
                kept.append(span.start + fits)
                parts.append(self._computed(engine, asked, features))
        if kept:
            places = np.concatenate(kept)
            found = differences(batch.take(pa.array(places)), self._batch(asked, _concatenated(parts)))
            outcome.differences.update({int(places[at]): each for at, each in found.items()})
        return outcome

    def _computed(self, engine: Engine, asked: _Asked, features: Features) -> dict[str, Array]:
        """The outputs, with contributions of the rows that have reasons."""
        outputs = self._run(engine, features, asked.outputs)
        if "reasons" in asked.names and len(explained := self._decisions.lacking(outputs)):
            explaining = self._engines.select(len(explained), (CONTRIBUTIONS,))
            outputs |= self._run(explaining, take(features, explained), (CONTRIBUTIONS,))
        return outputs

    def _run(self, engine: Engine, features: Features, names: tuple[str, ...]) -> dict[str, Array]:
        computed = engine.run(features, of_engine(names))
        return {tensor.name: tensor.array for tensor in self._outputs.tensors(names, computed)}

    def _made(self, columns: Columns) -> Features:
        return self._accepted.of_features(self._features(columns))

    def _batch(self, asked: _Asked, outputs: dict[str, Array]) -> pa.RecordBatch:
        """The outputs and answers in the form of the log."""
        answers = {PREDICT: outputs[PREDICT]} if PREDICT in asked.names else {}
        try:
            answers |= self._decisions.decide(outputs, [name for name in asked.names if name != PREDICT])
        except PredictionFailed:  # the score is not a number, and nothing was decided then either
            if asked.answered:
                raise
        kept = {name: array for name, array in outputs.items() if name != CONTRIBUTIONS or name in asked.logged}
        entry = _entry(kept, answers)
        columns = pa.schema([self._columns.field(name) for name in (OUTPUTS, *asked.names)])
        (made,) = record.table([entry], [np.ones(len(entry))], columns).combine_chunks().to_batches()
        return made


def _absent(name: str, dropped: Sequence[str]) -> str:
    why = next((text for text in dropped if text.startswith(f"{name}:")), "")
    return f"the engine {name} is not in use here{why.removeprefix(name)}"


def _entry(outputs: dict[str, Array], answers: dict[str, Array]) -> Entry:
    """An entry of which only outputs and answers count."""
    return Entry(
        request_id="",
        time=0.0,
        rows=0,
        engine="",
        versions="",
        release="",
        digest="",
        columns={},
        outputs=outputs,
        answers=answers,
    )


def _alike(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The records in parts of the same engine, outputs and answers."""
    outputs = batch.column(OUTPUTS)
    there = [outputs.field(field.name) for field in outputs.type]
    there += [batch.column(name) for name in ANSWERS if name in batch.schema.names]
    engine = batch.column("engine").dictionary_encode().indices.to_numpy(zero_copy_only=False)
    kinds = np.column_stack([engine, *(each.is_valid().to_numpy(zero_copy_only=False) for each in there)])
    for kind in np.unique(kinds, axis=0):
        yield batch.take(pa.array(np.flatnonzero((kinds == kind).all(axis=1))))


def _any(values: pa.Array) -> bool:
    """Whether any is logged."""
    return bool(values.null_count < len(values))


def _part(columns: Columns, span: slice) -> Columns:
    return {name: column[span] for name, column in columns.items()}


def _concatenated(parts: Sequence[dict[str, Array]]) -> dict[str, Array]:
    """The outputs of all parts; contributions of those parts that have them."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: np.concatenate([part[name] for part in parts if name in part]) for name in names}


def _misfit(fault: Misfit) -> Difference:
    return Difference(f"record.{fault.field}" if fault.field else "record", fault.got, f"expected {fault.expected}")
