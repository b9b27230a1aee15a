"""`bundle.json`: what is in a bundle, with digests, and how to evaluate its model."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from tabserve.bundle.errors import BundleError
from tabserve.inference import names
from tabserve.schema.schema import Task

FORMAT = 1
MANIFEST = "bundle.json"
SCHEMA = "schema.yaml"
REFERENCE = "reference.npz"
SIGNATURE = "bundle.sig"
"""Beside the manifest and outside the digest, because it is made after them."""
MAX_MANIFEST_BYTES = 16 << 20
MAX_BYTES = {SCHEMA: 1 << 20, REFERENCE: 64 << 20}
"""The most bytes of the files that Python reads, which takes seconds for a megabyte of YAML."""

ModelFormat: TypeAlias = Literal["ubj", "json", "lightgbm", "skops", "joblib"]
EngineName: TypeAlias = Literal["xgboost", "lightgbm", "sklearn", "onnxruntime", "onedal"]
Datatype: TypeAlias = Literal["FP32", "FP64"]
ClassValue: TypeAlias = bool | int | float | str
Frame: TypeAlias = Literal["", "array", "object", "category"]
Dtype: TypeAlias = Literal[
    "", "float64", "float32", "int64", "bool", "Int64", "Float64", "boolean",
    "object[float]", "object[int]", "object[bool]", "object", "category", "string",
]  # fmt: skip


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class FileEntry(_Strict, frozen=True):
    """Digest (hex) and size in bytes of one file."""

    sha256: str
    size: int


class FeatureSpec(_Strict, frozen=True):
    """One feature, as the model or the preprocessor takes it.

    values: the categories in the order of their codes. They are the model's training order, which may differ from the
    schema's. source: the schema feature it is computed from, "" where it is computed from several.
    max_length: how many characters a text may have.
    dtype: the column's dtype in the scikit-learn engine's table, where `frame` does not already give it. `object[int]`
    is a column of Python integers; a category of `float64` is a column of codes. missing: the mark for a missing value
    in a column of objects, NaN or None.
    """

    name: str
    type: Literal["number", "category", "text"]
    values: tuple[str, ...] = ()
    source: str = ""
    max_length: int = 0
    dtype: Dtype = ""
    missing: Literal["nan", "none"] = "nan"

    @property
    def is_text(self) -> bool:
        """Whether an estimator that takes a table is given the feature as text."""
        return self.type != "number" and self.dtype != "float64"


class EngineRange(_Strict, frozen=True):
    """Requests of `from_rows` rows or more, up to the next range, go to `engine`."""

    from_rows: int
    engine: EngineName


class Timing(_Strict, frozen=True):
    """The shortest engine call for the default outputs, with one thread and different rows in each call."""

    engine: EngineName
    rows: int
    microseconds: float


class Agreement(_Strict, frozen=True):
    """How far an engine's answers were from the model's own when the bundle was saved, over `rows` rows."""

    engine: EngineName
    rows: int
    max_difference: float


class ModelInfo(_Strict, frozen=True):
    """The model: its file, what it takes, what it gives, and which engine serves requests of which size.

    input: one `matrix` [rows, features] of `datatype` (a category as its code, NaN where missing), or `columns`
    [rows], one per feature (numbers FP64, categories as text).
    frame: how the scikit-learn engine hands the features on: as the matrix (""), an array of objects ("array"), or a
    DataFrame whose categories are text ("object") or pandas categoricals ("category").
    outputs: what the native engine computes, of `predict`, `predict_proba`, `margin`, `anomaly_score`, `contributions`.
    (`label` is not among them: a service makes it from `predict` and the schema's class names.)
    range: numbers beyond the range of this datatype are refused, as the library does; "" means `datatype`.
    missing: numbers that mean a missing value to the model, as NaN does.
    classes: the model's own class values, in the order of `predict_proba`; empty for a regression.
    likeliest: whether `predict` is always the class with the highest `predict_proba`.
    targets: how many values a regression gives per row.
    onnx: the converted form's file, None where there is none. datatype is also that of every output of floats.
    row_independent: engines whose structure makes a row's answer the same bytes whatever the other rows are.
    engines: the plan, `from_rows` ascending from 0.
    tolerance: how far an engine's probabilities and values may be from the reference outputs, relative to the larger
    of 1 and the value.
    notes: what `save` did not do, and why, such as "onnx: not converted: …".
    """

    file: str
    format: ModelFormat
    native: EngineName
    input: Literal["matrix", "columns"]
    datatype: Datatype
    features: tuple[FeatureSpec, ...]
    outputs: tuple[str, ...]
    default_outputs: tuple[str, ...]
    engines: tuple[EngineRange, ...]
    tolerance: float
    range: Datatype | Literal[""] = ""
    missing: tuple[float, ...] = ()
    classes: tuple[ClassValue, ...] = ()
    likeliest: bool = False
    targets: int = 1
    frame: Frame = ""
    onnx: str | None = None
    row_independent: tuple[EngineName, ...] = ()
    timings: tuple[Timing, ...] = ()
    agreement: tuple[Agreement, ...] = ()
    notes: tuple[str, ...] = ()


class PreprocessorInfo(_Strict, frozen=True):
    """The fitted preprocessor, which makes the model's matrix from feature columns; `frame` as in ModelInfo."""

    file: str
    format: Literal["onnx", "skops", "joblib"]
    features: tuple[FeatureSpec, ...]
    frame: Frame = ""
    tolerance: float = 1e-6
    notes: tuple[str, ...] = ()


class Manifest(_Strict, frozen=True):
    """A whole `bundle.json`. created: RFC 3339, UTC. libraries: the versions that saved the bundle."""

    format: Literal[1]
    name: str
    version: str
    created: str
    task: Task
    libraries: dict[str, str]
    files: dict[str, FileEntry]
    model: ModelInfo
    preprocessor: PreprocessorInfo | None = None


class _Format(msgspec.Struct):
    format: int


def encode(manifest: Manifest) -> bytes:
    """The manifest's canonical bytes: sorted keys, indented, a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2) + b"\n"


def decode(data: bytes) -> Manifest:
    """The manifest in `bundle.json`'s bytes. Raises BundleError."""
    try:
        found = msgspec.json.decode(data, type=_Format).format
        if found != FORMAT:
            raise BundleError(
                MANIFEST, f"expected format {FORMAT}, got {found}", "Use the version of tabserve that saved it."
            )
        contents = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(MANIFEST, f"not a manifest: {error}", "Save the bundle again.") from error
    problem = names.misfit(contents.name)
    if problem is not None:
        raise BundleError(MANIFEST, f"name: {problem}", "Save the bundle again with another name.")
    return contents


def digest(data: bytes) -> str:
    """A bundle's digest, from the bytes of its `bundle.json`, which hold the digests of every other file."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def entry(path: Path) -> FileEntry:
    """Digest and size of a file, read in pieces and never through a symbolic link. Raises OSError."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        return FileEntry(hashlib.file_digest(file, "sha256").hexdigest(), file.tell())
