"""The decision record, format 1: the columns of a Parquet file, one row for each decided record (docs/decisions.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import TypeAlias

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from tabserve.arrays import Array
from tabserve.bundle import Bundle
from tabserve.bundle.outputs import numeric
from tabserve.bundle.tensors import class_names
from tabserve.decision_log.entry import ONLINE, SHADOW, Entry, ids
from tabserve.schema import answers
from tabserve.schema.columns import Columns
from tabserve.schema.decisions import Decisions
from tabserve.schema.schema import Field, Schema
from tabserve.schema.timestamps import DAY
from tabserve.scoring.scorer import answer_types

__all__ = ["BUNDLE", "FORMAT", "FORMAT_KEY", "Entry", "columns", "schema", "table"]

FORMAT = 1
FORMAT_KEY, BUNDLE = "tabserve.format", "tabserve.bundle"
"""The keys of a file's metadata: the format, and the bundle's name and version in JSON."""
_TIME = pa.timestamp("us", tz="UTC")
_NUMBERS = pa.list_(pa.float64())
_TEXTS = pa.list_(pa.string())
_TYPES = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "category": pa.string(),
    "text": pa.string(),
    "timestamp": pa.float64(),
    "date": pa.date32(),
}
_Parts: TypeAlias = Sequence[Array | None]
"""An array [rows, …] of each entry, None if the entry has none."""


def schema(bundle: Bundle) -> pa.Schema:
    """The columns of a bundle's decision records; what its decisions have nothing for is left out."""
    manifest = bundle.manifest
    head = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("time", _TIME, nullable=False),
        pa.field("request_id", pa.string()),
        *(pa.field(name, pa.int32(), nullable=False) for name in ("row", "rows")),
        *(
            pa.field(name, pa.string(), nullable=False)
            for name in ("source", "release", "digest", "engine", "versions")
        ),
    ]
    named = orjson.dumps({"name": manifest.name, "version": manifest.version}).decode()
    return pa.schema(
        [*head, *_record(bundle.schema), *_answers(bundle), pa.field("weight", pa.float64(), nullable=False)],
        {FORMAT_KEY: str(FORMAT), BUNDLE: named},
    )


def _record(described: Schema) -> list[pa.Field]:
    """The column `record`; none if every field is dropped, because Parquet has no empty structs."""
    kept = [(field.name, _type(field)) for field in described.record if field.logged != "drop"]
    return [pa.field("record", pa.struct(kept), nullable=False)] if kept else []


def _type(field: Field) -> pa.DataType:
    return pa.string() if field.logged == "hash" else _TYPES[field.type]


def _answers(bundle: Bundle) -> list[pa.Field]:
    described, model, classes = bundle.schema, bundle.manifest.model, class_names(bundle)
    targets = described.outputs.targets
    kinds = answer_types(targets)
    names = answers.names(Decisions(described, model, classes).names, classes, targets)
    codes = [pa.field("codes", _TEXTS)] if "reasons" in names else []
    held = [(name, _NUMBERS) for name in numeric(model)]
    outputs = [pa.field("outputs", pa.struct(held), nullable=False)] if held else []
    return [
        *outputs,
        *(pa.field(name, kinds[name]) for name in names),
        *codes,
    ]


def table(entries: Sequence[Entry], weights: Sequence[Array], columns: pa.Schema) -> pa.Table:
    """The records of at least one entry, in order. columns: the bundle's, from `schema`.

    weights: for each entry, 1 / the probability of being kept [rows]; records of weight 0 are left out.
    """
    counts = [len(entry) for entry in entries]
    places = [np.arange(count) if e.places is None else e.places for e, count in zip(entries, counts, strict=True)]
    joined = np.concatenate(weights)
    made = {
        "id": pa.array(chain.from_iterable(map(ids, entries)), pa.string()),
        "row": pa.array(np.concatenate(places), pa.int32()),
        "source": pa.array(_sources(entries, places), pa.string()),
        "weight": pa.array(joined, pa.float64()),
        "time": _each([round(entry.time * 1e6) for entry in entries], counts, pa.int64()).cast(_TIME),
        "rows": _each([entry.rows for entry in entries], counts, pa.int32()),
    }
    for name in ("request_id", "release", "digest", "engine", "versions"):
        made[name] = _each([getattr(entry, name) for entry in entries], counts, pa.string())
    made["request_id"] = pc.if_else(pc.equal(made["request_id"], ""), None, made["request_id"])
    for field in columns:
        if field.name not in made:
            made[field.name] = _filled(field, entries, counts)
    whole = pa.Table.from_arrays([made[name] for name in columns.names], schema=columns)
    return whole if joined.all() else whole.filter(pa.array(joined > 0))


def _sources(entries: Sequence[Entry], places: Sequence[Array]) -> Iterable[str]:
    for entry, at in zip(entries, places, strict=True):
        asked = entry.source in (ONLINE, SHADOW)
        origins = at.tolist() if entry.origins is None else entry.origins
        yield from (entry.source if asked else f"{entry.source}#{origin}" for origin in origins)


def _each(values: Sequence[str | int], counts: Sequence[int], kind: pa.DataType) -> pa.Array:
    """One value per entry, repeated for each of its records."""
    return pa.array(values, kind).take(pa.array(np.repeat(np.arange(len(counts)), counts)))


def _filled(field: pa.Field, entries: Sequence[Entry], counts: Sequence[int]) -> pa.Array:
    """The column that is made of the entries' arrays."""
    if field.name == "record":
        return _struct(field, [entry.columns for entry in entries], counts, _values)
    if field.name == "outputs":
        return _struct(field, [entry.outputs for entry in entries], counts, _numbers)
    parts = [entry.answers.get(field.name) for entry in entries]
    if field.name == "predict":
        return _targets(parts, counts, field.type)
    if field.name in ("reasons", "codes"):
        reasons = [entry.answers.get("reasons") for entry in entries]
        return _texts(parts, reasons, counts)
    return _values(parts, counts, field.type)


def _struct(
    field: pa.Field,
    parts: Sequence[Mapping[str, Array]],
    counts: Sequence[int],
    make: Callable[[_Parts, Sequence[int], pa.DataType], pa.Array],
) -> pa.Array:
    columns = _by_name(parts, [child.name for child in field.type])
    made = [make(arrays, counts, child.type) for arrays, child in zip(columns, field.type, strict=True)]
    return pa.StructArray.from_arrays(made, fields=list(field.type))


def _by_name(parts: Sequence[Mapping[str, Array]], names: list[str]) -> list[_Parts]:
    """The arrays of each name; found once for all entries if these have the same names in the same order."""
    first = list(parts[0])
    if all(list(one) == first for one in parts):
        found = dict(zip(first, zip(*(one.values() for one in parts), strict=True), strict=True))
        return [found.get(name, [None] * len(parts)) for name in names]
    return [[one.get(name) for one in parts] for name in names]


def _values(parts: _Parts, counts: Sequence[int], kind: pa.DataType) -> pa.Array:
    """One value a record; null where it is missing."""
    texts = pa.types.is_string(kind)
    missing = None if texts else np.nan
    arrays = [np.full(n, missing) if part is None else part for part, n in zip(parts, counts, strict=True)]
    joined = np.concatenate(arrays)
    if texts:
        return pa.array(joined, kind)
    absent = np.isnan(joined)
    if pa.types.is_floating(kind):
        return pa.array(joined, kind, mask=absent)
    whole = np.where(absent, 0.0, joined)
    if pa.types.is_date(kind):
        return pa.array((whole / DAY).astype(np.int32), pa.int32(), mask=absent).cast(kind)
    return pa.array(whole.astype(bool if pa.types.is_boolean(kind) else np.int64), kind, mask=absent)


def _numbers(parts: _Parts, counts: Sequence[int], _: pa.DataType) -> pa.Array:
    """The numbers of each record as a list, row by row, as many for each; null where there are none."""
    present = [part for part in parts if part is not None]
    joined = np.concatenate(present) if present else np.empty(0)
    absent = np.repeat([part is None for part in parts], counts)
    lengths = np.where(absent, 0, joined[:1].size)
    return _lists(pa.array(joined.ravel().astype(np.float64)), lengths, pa.array(absent), _NUMBERS)


def _texts(parts: _Parts, reasons: _Parts, counts: Sequence[int]) -> pa.Array:
    """The texts of each record, of those places at which there is a reason; null where there are none."""
    lengths, kept = [], []
    for part, told, count in zip(parts, reasons, counts, strict=True):
        if part is None or told is None:
            lengths.append(np.zeros(count, np.int64))
        else:
            lengths.append((told != "").sum(axis=1))
            kept.append(part[told != ""].tolist())
    values = pa.array(list(chain.from_iterable(kept)), pa.string())
    return _lists(values, np.concatenate(lengths), _absent(parts, counts), _TEXTS)


def _targets(parts: _Parts, counts: Sequence[int], kind: pa.DataType) -> pa.Array:
    width = len(kind)
    filled = [np.zeros((n, width)) if part is None else part for part, n in zip(parts, counts, strict=True)]
    joined = np.concatenate(filled).astype(np.float64)
    made = [pa.array(column) for column in joined.T]
    return pa.StructArray.from_arrays(made, fields=list(kind), mask=_absent(parts, counts))


def _lists(values: pa.Array, lengths: Array, absent: pa.Array, kind: pa.DataType) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=kind, mask=absent)


def _absent(parts: _Parts, counts: Sequence[int]) -> pa.Array:
    return pa.array(np.repeat([part is None for part in parts], counts))


def columns(records: pa.StructArray, described: Schema) -> Columns:
    """The checked columns of the fields that are kept, from the column `record`, with the bits they had.

    records: as in the log. A field that is hashed or dropped has no column.
    """
    kept = [field for field in described.record if field.logged == "keep"]
    return {field.name: _column(records.field(field.name), field) for field in kept}


def _column(values: pa.Array, field: Field) -> Array:
    if pa.types.is_string(values.type):
        return np.array(values.to_pylist(), object)
    if pa.types.is_date(values.type):
        values = values.cast(pa.int32())
    numbers: Array = pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False)
    return numbers * DAY if field.type == "date" else numbers
