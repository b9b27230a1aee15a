"""From a log's files, and files of labels, to the arrays that are counted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from pyarrow import fs

from tabserve.arrays import Array
from tabserve.bundle import Bundle, evaluation
from tabserve.bundle.tensors import class_names
from tabserve.decision_log import record
from tabserve.decision_log.entry import SHADOW
from tabserve.monitor.columns import DECISION, SCORE, Column
from tabserve.monitor.counts import Batch, calibrated
from tabserve.monitor.labels import Labelled
from tabserve.schema.features import derive
from tabserve.schema.groups import Grouped
from tabserve.schema.schema import Schema
from tabserve.schema.timestamps import DAY, seconds
from tabserve.scoring.storage import Place, RunError

_BATCH_ROWS = 65_536
_CODE = np.int16
"""What holds the places of releases, decisions, classes and groups, of which a log may have ten million."""


class Read(NamedTuple):
    """The records of one bundle in a batch: what is counted, and what labels are joined with [rows].

    predicted: a regression's values, empty for others.
    """

    batch: Batch
    ids: list[str]
    releases: list[str]
    scores: Array
    labels: list[str | None]
    predicted: Array


class Reader:
    """Reads the decision records of one bundle. needed: the columns that it reads."""

    def __init__(
        self, bundle: Bundle, columns: Sequence[Column], audited: Sequence[Grouped], segments: Sequence[Grouped] = ()
    ) -> None:
        self._digest, self._columns, self._audited, self._segments = bundle.digest, columns, audited, segments
        self._schema = bundle.schema
        self._logged = with_logged_features(bundle.schema)
        self._names = evaluation.decision_names(bundle.schema, class_names(bundle))
        self._has_classes = bool(class_names(bundle))
        self._places = {name: at for at, name in enumerate(self._names)}
        names = ("id", "time", "source", "release", "digest", "record", "score", "decision", "label", "weight")
        self.needed = names if self._has_classes else (*names, "outputs")
        evaluated = bundle.reference.evaluation
        outcomes = None if evaluated is None else evaluated.outcomes
        self._knots = None if outcomes is None or not outcomes.knots.size else outcomes.knots

    def read(self, found: pa.RecordBatch) -> Read | None:
        """The bundle's records; None if there are none. Raises RunError."""
        own = found.filter(pc.equal(found.column("digest"), self._digest))
        if not own.num_rows:
            return None
        fields = record.columns(own.column("record"), self._schema) if "record" in own.schema.names else {}
        features = derive(self._logged, fields) if self._logged.features else {}
        scores = _numbers(own, "score")
        decided = own.column("decision").to_pylist() if "decision" in own.schema.names else [self._names[0]]
        values = {SCORE: scores, DECISION: np.array(decided, object)}
        inside = {each.field.name: each.places(fields[each.field.name]) for each in self._segments}

        def of(column: Column) -> Array:
            if column.segment is None:
                return features[column.name] if column.of == "feature" else values[column.of]
            field, place = column.segment
            elsewhere: Any = np.nan if column.of == SCORE else None
            return np.where(inside[field] == place, values[column.of], elsewhere)

        days = np.floor(pc.cast(own.column("time"), pa.int64()).to_numpy() / (DAY * 1e6)).astype(np.int64)
        batch = Batch(
            days,
            own.column("weight").to_numpy(),
            [of(each) for each in self._columns],
            self._decisions(decided, own.num_rows),
            None if self._knots is None else calibrated(scores, self._knots),
            [each.places(fields[each.field.name]) for each in self._audited],
        )
        labels = own.column("label").to_pylist() if "label" in own.schema.names else [None] * own.num_rows
        ids, releases = own.column("id").to_pylist(), own.column("release").to_pylist()
        predicted = np.empty(0) if self._has_classes else _predicted(own)
        return Read(batch, ids, releases, scores, labels, predicted)

    def _decisions(self, decided: Sequence[str], rows: int) -> Array:
        if self._names == (evaluation.WITHOUT,):
            return np.zeros(rows, np.intp)
        unknown = set(decided) - self._places.keys()
        if unknown:
            raise RunError(f"expected decisions {', '.join(self._names)}, got {unknown}. Was the log changed?")
        return np.array([self._places[name] for name in decided], np.intp)


def asked(found: pa.RecordBatch) -> pa.RecordBatch:
    """The records without copies for a shadow, of which the originals are in the log as well."""
    copies = pc.equal(found.column("source"), SHADOW)
    return found.filter(pc.invert(copies)) if pc.any(copies).as_py() else found


def with_logged_features(schema: Schema) -> Schema:
    """The schema with only those features that can be made from what the log keeps."""
    kept = {field.name for field in schema.record if field.logged == "keep"}
    made = zip(schema.features, schema.sources.values(), strict=True)
    features = tuple(feature for feature, sources in made if sources <= kept)
    return msgspec.structs.replace(schema, features=features)


def _numbers(batch: pa.RecordBatch, name: str) -> Array:
    if name not in batch.schema.names:
        return np.full(batch.num_rows, np.nan)
    numbers: Array = batch.column(name).to_numpy(zero_copy_only=False).astype(np.float64)
    return numbers


def _predicted(batch: pa.RecordBatch) -> Array:
    """A regression's values."""
    lists = batch.column("outputs").field("predict")
    return np.array([each[0] if each else math.nan for each in lists.to_pylist()])


def _label_files(place: Place) -> list[str]:
    (info,) = place.files.get_file_info([place.path])
    if info.type == fs.FileType.File:
        return [place.path]
    found = place.files.get_file_info(fs.FileSelector(place.path, allow_not_found=True))
    return sorted(each.path for each in found if each.path.endswith((".parquet", ".csv")))


class Truths:
    """What records turned out to be, by their ids: the latest label of each.

    Ids are compared by 64 bits of their hash: that two of ten million have the same has a probability of one in a
    hundred thousand.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._classes, self._model = class_names(bundle), bundle.manifest.model
        self._parts: list[tuple[Array, Array, Array]] = []
        self._ids, self._values = np.empty(0, np.int64), np.empty(0)

    @property
    def count(self) -> int:
        """The number of ids with a label."""
        return len(self._ids)

    def read(self, labels: str) -> None:
        """Read a file or a folder of Parquet and CSV files with the columns id, label and time. Raises RunError."""
        place = Place.of(labels)
        found = place.patiently(partial(_label_files, place))
        if not found:
            raise RunError(f"{labels}: no Parquet or CSV files. Give a file or folder with id, label and time.")
        for path in found:
            for table in _label_batches(place, path):
                self._add(path, table)
        if self._parts:
            ids, times, values = (np.concatenate(each) for each in zip(*self._parts, strict=True))
            order = np.lexsort((np.arange(len(ids)), times, ids))
            last = np.append(ids[order][1:] != ids[order][:-1], True)
            self._ids, self._values = ids[order][last], values[order][last]
        self._parts = []

    def _add(self, path: str, table: pa.RecordBatch) -> None:
        for name in ("id", "label"):
            if name not in table.schema.names:
                raise RunError(f"{path}: expected the columns id, label and time, got {', '.join(table.schema.names)}.")
        table = table.filter(pc.is_valid(table.column("label")))
        times = _times(path, table) if "time" in table.schema.names else np.zeros(table.num_rows)
        self._parts.append((_hashes(table.column("id").cast(pa.string())), times, self._coded(path, table)))

    def _coded(self, path: str, table: pa.RecordBatch) -> Array:
        """Classes as their places, values of a regression as they are."""
        values = table.column("label").to_pylist()
        try:
            codes = np.array(values, np.float64) if not self._classes else self._codes(values)
        except ValueError as error:
            raise RunError(f"{path}: labels: {error}. Correct the file.") from error
        return codes

    def _codes(self, values: Sequence[Any]) -> Array:
        codes = evaluation.class_codes(values, self._model, self._classes)
        if len(wrong := np.flatnonzero(codes < 0)):
            raise ValueError(f"expected {' or '.join(self._classes)}, got {values[int(wrong[0])]!r}")
        return codes.astype(np.float64)

    def of(self, ids: Sequence[str]) -> tuple[Array, Array]:
        """The positions of the records that have a label, and their labels."""
        if not len(self._ids):
            return np.empty(0, np.intp), np.empty(0)
        wanted = _hashes(ids)
        at = np.minimum(np.searchsorted(self._ids, wanted), len(self._ids) - 1)
        which = np.flatnonzero(self._ids[at] == wanted)
        return which, self._values[at[which]]


def _hashes(ids: Any) -> Array:
    texts = ids.to_pylist() if hasattr(ids, "to_pylist") else ids
    return np.fromiter((hash(text) for text in texts), np.int64, len(texts))


def _label_batches(place: Place, path: str) -> Iterator[pa.RecordBatch]:
    try:
        if path.endswith(".parquet"):
            yield from pq.ParquetFile(place.files.open_input_file(path)).iter_batches(_BATCH_ROWS)
            return
        options = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(("id", "label", "time"), pa.string()), strings_can_be_null=True
        )
        with place.files.open_input_stream(path) as stream:
            yield from pyarrow.csv.open_csv(stream, convert_options=options)
    except pa.ArrowInvalid as error:
        raise RunError(f"{path}: cannot be read: {error}. Correct the file.") from error


def _times(path: str, table: pa.RecordBatch) -> Array:
    column = table.column("time")
    if pa.types.is_timestamp(column.type):
        return np.asarray(column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64()).to_numpy() / 1e6)
    found = [seconds(value) if isinstance(value, str | int | float) else None for value in column.to_pylist()]
    if None in found:
        raise RunError(f"{path}: time: expected ISO 8601 times, got {column[found.index(None)].as_py()!r}.")
    return np.array(found, np.float64)


class Joining:
    """Joins decisions with their labels. far: of a regression, see `Outcomes`."""

    def __init__(self, bundle: Bundle, truths: Truths, far: float) -> None:
        self._truths, self._far = truths, far
        self._classes, self._model = class_names(bundle), bundle.manifest.model
        scored = evaluation.scored_class(bundle.schema, self._classes)
        self._scored = None if scored is None else self._classes.index(scored)
        self.releases: list[str] = []

    def join(self, found: Read) -> Labelled:
        """Those decisions that have a label."""
        which, values = self._truths.of(found.ids)
        batch = found.batch
        codes = np.array([self._release(found.releases[at]) for at in which.tolist()], np.intp)
        true, hits, wrong = self._compared(found, which, values)
        return Labelled(
            batch.days[which].astype(np.int32),
            codes.astype(_CODE),
            batch.weights[which],
            batch.decisions[which].astype(_CODE),
            true.astype(_CODE),
            hits,
            wrong,
            found.scores[which],
            [each[which].astype(_CODE) for each in batch.groups],
        )

    def _compared(self, found: Read, which: Array, values: Array) -> tuple[Array, Array, Array]:
        if not self._classes:
            wrong = np.abs(found.predicted[which] - values) > self._far
            return np.zeros(len(which), np.intp), np.zeros(len(which), bool), wrong
        true = values.astype(np.intp)
        named = [found.labels[at] for at in which.tolist()]
        labels = evaluation.class_codes(named, self._model, self._classes)
        return true, true == (labels if self._scored is None else self._scored), true != labels

    def _release(self, name: str) -> int:
        if name not in self.releases:
            self.releases.append(name)
        return self.releases.index(name)
