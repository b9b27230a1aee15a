"""`reference.npz`: the rows that a bundle is checked with, and how its training data was distributed."""

from __future__ import annotations

import io
import zipfile
import zlib
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.lib import format as npy

from tabserve.arrays import Array, Features
from tabserve.bundle import evaluation
from tabserve.bundle.errors import BundleError
from tabserve.bundle.evaluation import Evaluation
from tabserve.bundle.files import File
from tabserve.bundle.histogram import Histogram

MAX_ROWS = 1_000
MAX_BYTES = 96 << 20
"""The most bytes of all arrays together, uncompressed."""
MAX_ARRAYS = 50_000
_SHORT = 256
_ENTRY = b"PK\x01\x02"
"""The bytes that begin an entry of a zip's directory."""
_MALFORMED = (
    ValueError, TypeError, LookupError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
Columns: TypeAlias = dict[str, Array]


class Reference(msgspec.Struct, frozen=True):
    """Up to 1,000 rows: the records, the model's features and the model's answers; and histograms of all rows.

    evaluation: None if the bundle was saved without `held_out` and `labels`.
    """

    records: Columns
    features: Features
    outputs: dict[str, Array]
    histograms: dict[str, Histogram]
    evaluation: Evaluation | None = None


def write(reference: Reference, path: Path) -> None:
    """Write the reference as a compressed npz that holds no Python objects."""
    groups: dict[str, dict[str, Array]] = {
        "record": reference.records,
        "feature": reference.features if isinstance(reference.features, dict) else {"": reference.features},
        "output": reference.outputs,
        "bounds": {name: one.bounds for name, one in reference.histograms.items()},
        "counts": {name: one.counts for name, one in reference.histograms.items()},
        "missing": {name: np.array(one.missing) for name, one in reference.histograms.items()},
        "evaluation": evaluation.stored(reference.evaluation),
    }
    arrays: dict[str, Array] = {}
    for group, columns in groups.items():
        for name, column in columns.items():
            arrays |= _stored(f"{group}/{name}", column)
    size = sum(array.nbytes for array in arrays.values())
    if size > MAX_BYTES // 2:  # the headers need more
        problem = f"rows to check the bundle with take {size} bytes, at most {MAX_BYTES // 2} are read again"
        raise BundleError("sample", problem, "Give a sample of fewer rows.")
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read(file: File) -> Reference:
    """The reference in a file, read without unpickling if it is not too large. Raises BundleError."""
    try:
        return _reference(_arrays(file.content))
    except _MALFORMED as error:
        raise BundleError(file.name, f"not a reference of format 1: {error}", "Save the bundle again.") from error


def _arrays(content: bytes) -> dict[str, Array]:
    """The arrays of an npz. Raises ValueError before reading any if they take more than MAX_BYTES."""
    if content.count(_ENTRY) > MAX_ARRAYS:
        raise ValueError(f"more than {MAX_ARRAYS} arrays")
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = file.infolist()
        if sum(member.file_size for member in members) > MAX_BYTES:
            raise ValueError(f"arrays of more than {MAX_BYTES} bytes")
        return {member.filename.removesuffix(".npy"): _array(file, member) for member in members}


def _array(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    """One array, whose header must not claim more than there is."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename!r}: expected a plain or deflated array")
    with file.open(member) as content:
        version = npy.read_magic(content)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = header(content)
        size = prod(shape) * dtype.itemsize
        if dtype.hasobject or size != member.file_size - content.tell():
            raise ValueError(f"{member.filename!r}: expected an array of numbers or words as long as its header says")
        array: Array = np.frombuffer(bytearray(content.read(size)), dtype)
        return array.reshape(shape, order="F" if fortran else "C")


def _stored(key: str, column: Array) -> dict[str, Array]:
    """A column as arrays that need no pickle.

    Numbers stay as they are. Words become fixed-width unicode, long ones UTF-8 and where each ends; a mask marks the
    missing ones.
    """
    if column.dtype != object:
        return {key: column}
    absent = np.array([value is None for value in column], bool)
    words = ["" if value is None else value for value in column.tolist()]
    if max(map(len, words), default=0) <= _SHORT:
        return {key: np.array(words, str), f"absent/{key}": absent}
    encoded = [word.encode() for word in words]
    ends = np.cumsum([len(word) for word in encoded])
    return {key: np.frombuffer(b"".join(encoded), np.uint8), f"ends/{key}": ends, f"absent/{key}": absent}


def _reference(arrays: dict[str, Array]) -> Reference:
    groups: dict[str, dict[str, Array]] = {"record": {}, "feature": {}, "output": {}}
    for key, array in arrays.items():
        group, _, name = key.partition("/")
        if group in groups:
            groups[group][name] = _column(array, arrays.get(f"absent/{key}"), arrays.get(f"ends/{key}"))
    features = groups["feature"]
    histograms = {
        key.removeprefix("bounds/"): _histogram(arrays, key.removeprefix("bounds/"))
        for key in arrays
        if key.startswith("bounds/")
    }
    prefix = "evaluation/"
    found = evaluation.read(
        {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
    )
    return Reference(groups["record"], features.get("", features), groups["output"], histograms, found)


def _column(array: Array, absent: Array | None, ends: Array | None) -> Array:
    if len(array if ends is None else ends) > MAX_ROWS:
        raise ValueError(f"more than {MAX_ROWS} rows")
    if absent is None:
        return array
    if ends is not None:
        data = array.tobytes()
        array = np.array([data[start:end].decode() for start, end in pairwise((0, *ends.tolist()))], object)
    column = array.astype(object)
    column[absent] = None
    return column


def _histogram(arrays: dict[str, Array], name: str) -> Histogram:
    return Histogram(arrays[f"bounds/{name}"], arrays[f"counts/{name}"], int(arrays[f"missing/{name}"]))
