"""A bundle in process: record batches in, decisions out, with the same answers as from the services."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from tabserve import bundle as bundles
from tabserve import engines
from tabserve.arrays import Array, Features
from tabserve.bundle import Bundle
from tabserve.bundle.model_input import ModelInput, Preprocess, RecordFeatures, fitting
from tabserve.bundle.tensors import may_miss
from tabserve.engines import parity
from tabserve.inference.errors import InvalidRequest
from tabserve.schema import answers
from tabserve.schema.columns import Columns, Misfit, firsts
from tabserve.schema.features import derive
from tabserve.schema.records import Records
from tabserve.scoring.answering import Answer, Answering
from tabserve.scoring.arrow import ArrowRecords

ERRORS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("field", pa.string(), nullable=False),
        pa.field("expected", pa.string(), nullable=False),
        pa.field("got", pa.string(), nullable=False),
    ]
)
"""The columns for a record without a decision; rows count from 0 in the batch."""


class Scored(NamedTuple):
    """A scored record batch: each row is in `decided` (`Scorer.schema`) or in `errors` (`ERRORS`)."""

    decided: pa.RecordBatch
    errors: pa.RecordBatch


class Basis(NamedTuple):
    """What decided rows were decided on: their fields' columns, after defaults, and the model's answer."""

    columns: Columns
    answer: Answer


class Decided(NamedTuple):
    """Decided records: positions [rows], columns after defaults, answer; and the first fault of each of the others."""

    places: Array
    columns: Columns
    answer: Answer
    misfits: list[Misfit]


class Scorer:
    """Decides records in process as the services of a bundle do.

    A record gets the answer that it has alone in a request, from the engine for one row. If that engine's answers
    depend on the other rows, the engine for the batch's size answers, and `rows` says so.
    It can be pickled, by path and digest, so that a bundle that has changed is refused.
    """

    schema: pa.Schema
    """The columns of decided rows: `row`, the id's name if there is one, the answer, `engine` and `rows`."""

    def __init__(
        self,
        bundle: str | os.PathLike[str],
        *,
        threads: int = 1,
        digest: str | None = None,
        now: float | None = None,
        together: bool = False,
        allow_joblib: bool = False,
        trusted: Sequence[str] = (),
        signed_by: str | os.PathLike[str] | None = None,
    ) -> None:
        """Verify and load a bundle as a service does.

        threads: of the model's library. digest: refuse any other bundle.
        now: what `default: now` becomes, in seconds since 1970; None for the time of the call.
        together: answer a batch by the engine for a request of its size, which is often faster, and whose answers may
        differ in the last bits. allow_joblib, trusted, signed_by: as for `tabserve.bundle.load`.
        Raises BundleError.
        """
        found = bundles.load(bundle, digest=digest, allow_joblib=allow_joblib, trusted=trusted, signed_by=signed_by)
        options = {
            "threads": threads,
            "now": now,
            "together": together,
            "allow_joblib": allow_joblib,
            "trusted": trusted,
        }
        self._again = (str(Path(bundle).resolve()), {**options, "digest": found.digest})
        self.bundle = found
        schema = found.schema
        clock = time.time if now is None else lambda: now
        self._records, self._arrow = Records(schema, clock), ArrowRecords(schema, clock)
        preprocess = None if found.manifest.preprocessor is None else engines.load_preprocessor(found)
        self._features = RecordFeatures(found, preprocess)
        self._accepted = ModelInput(found.manifest.model, may_miss(found))
        self._answering = Answering(
            found, threads, alone=not together and (preprocess is None or row_by_row(preprocess, found))
        )
        self.schema = _schema(schema.id, self._answering.names, schema.outputs.targets)

    def __reduce__(self) -> tuple[Any, ...]:
        path, options = self._again
        return _open, (path, options)

    def score(self, batch: pa.RecordBatch, *, texts: bool = False) -> Scored:
        """Decide the rows of a batch whose columns are the schema's fields; other columns are ignored.

        Types are the schema's: numbers for number and integer, booleans, strings for category and text, timestamps,
        ISO 8601 strings or seconds for timestamp; null is a missing value.
        texts: whether every column is text, as in a CSV file.
        A row that does not fit becomes an error that names the field, what was expected and what it got.
        Raises InvalidRequest if a field's column is missing or has another type.
        """
        return self.record(batch, texts=texts, recording=False)[0]

    def record(self, batch: pa.RecordBatch, *, texts: bool = False, recording: bool = True) -> tuple[Scored, Basis]:
        """Decide the rows of a batch as `score` does, and say on what. recording: whether also for the decision log."""
        self._arrow.verify(batch.schema, texts=texts)
        decided = self._decided(*self._arrow.read(batch), recording)
        scored = Scored(self._batch(batch, decided.places, decided.answer), error_rows(decided.misfits))
        return scored, Basis(decided.columns, decided.answer)

    def sift(self, texts: Sequence[bytes], *, recording: bool = False) -> Decided:
        """Decide records that are each a JSON text, as in a JSON lines file; the ids are among the columns.

        recording: whether also for the decision log.
        """
        columns, places, faults = self._records.sift_each(texts)
        return self._decided(columns, places, firsts(faults), recording)

    def _decided(self, columns: Columns, places: Array, misfits: list[Misfit], recording: bool) -> Decided:
        """The decisions on records that fit the schema. misfits: of the others."""
        answer = Answer({}, "", 0)
        if len(places):
            features, fits, more = fitting(columns, self._made)
            misfits = sorted([*misfits, *(each._replace(record=int(places[each.record])) for each in more)])
            places = places[fits]
            columns = {name: column[fits] for name, column in columns.items()} if more else columns
        if len(places):
            answer = self._answering(features, recording=recording)
        return Decided(places, columns, answer, misfits)

    @property
    def versions(self) -> str:
        """The versions of tabserve and of the engines' libraries."""
        return self._answering.versions

    def features(self, batch: pa.RecordBatch) -> Features:
        """What the model is given for a batch in which every row fits. Raises InvalidRequest."""
        self._arrow.verify(batch.schema, texts=False)
        columns, _, misfits = self._arrow.read(batch)
        for misfit in misfits:
            raise InvalidRequest(str(misfit))
        return self._made(columns)

    def decide(self, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The decisions on records, in the form of V1's answers.

        Raises InvalidRequest naming the first record and field that do not fit.
        """
        if not records:
            return []
        features = self._made(self._records.convert(list(records)))
        return answers.objects(self._answering(features).arrays, self.bundle.schema.outputs.targets)

    def _made(self, columns: Columns) -> Features:
        return self._accepted.of_features(self._features(columns))

    def _batch(self, batch: pa.RecordBatch, places: Array, answer: Answer) -> pa.RecordBatch:
        """The answers, with the positions and ids of their rows."""
        size, schema = len(places), self.bundle.schema
        columns = [pa.array(places, pa.int64())]
        if schema.id is not None:
            columns.append(_ids(batch, schema.id, places))
        for name in self._answering.names:
            kind = self.schema.field(name).type
            columns.append(_array(name, answer.arrays[name], kind) if size else pa.array([], kind))
        columns += [pa.repeat(pa.scalar(answer.engine), size), pa.repeat(pa.scalar(answer.rows, pa.int32()), size)]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


class _Prepared:
    """A preprocessor as an engine, to check whether its rows are independent."""

    name, outputs, row_independent = "preprocessor", frozenset({"matrix"}), False

    def __init__(self, preprocess: Preprocess) -> None:
        self._preprocess = preprocess

    def run(self, features: Features, outputs: Sequence[str]) -> dict[str, Array]:
        """The preprocessor's matrix as an output."""
        assert isinstance(features, dict)
        return {"matrix": self._preprocess(features)}


def row_by_row(preprocess: Preprocess, bundle: Bundle) -> bool:
    """Whether a preprocessor makes the same bytes of a row whatever the other rows are."""
    features = derive(bundle.schema, bundle.reference.records)
    return parity.rows_are_independent(_Prepared(preprocess), features)


def _open(path: str, options: dict[str, Any]) -> Scorer:
    return Scorer(path, **options)


def answer_types(targets: Sequence[str]) -> dict[str, pa.DataType]:
    """The types of what answers hold. targets: the names in `predict`."""
    return {
        "decision": pa.string(),
        "score": pa.float64(),
        "label": pa.string(),
        "predict": pa.struct([(target, pa.float64()) for target in targets]),
        "reasons": pa.list_(pa.string()),
    }


def _schema(identity: str | None, answered: Sequence[str], targets: Sequence[str]) -> pa.Schema:
    kinds = answer_types(targets)
    return pa.schema(
        [
            pa.field("row", pa.int64(), nullable=False),
            *([pa.field(identity, pa.string())] if identity else []),
            *(pa.field(name, kinds[name]) for name in answered),
            pa.field("engine", pa.string(), nullable=False),
            pa.field("rows", pa.int32(), nullable=False),
        ]
    )


def _ids(batch: pa.RecordBatch, name: str, places: Array) -> pa.Array:
    if name not in batch.schema.names:
        return pa.nulls(len(places), pa.string())
    return batch.column(name).take(pa.array(places)).cast(pa.string())


def _array(name: str, values: Array, kind: pa.DataType) -> pa.Array:
    if name == "reasons":
        return pa.array([[text for text in texts if text] for texts in values.tolist()], kind)
    if name == "predict":
        return pa.StructArray.from_arrays([pa.array(column, pa.float64()) for column in values.T], fields=list(kind))
    return pa.array(values, kind)


def error_rows(misfits: Sequence[Misfit]) -> pa.RecordBatch:
    """Misfits as rows of `ERRORS`."""
    return pa.RecordBatch.from_pylist(answers.errors(misfits), schema=ERRORS)
