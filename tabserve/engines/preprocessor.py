"""A bundle's fitted preprocessor, which turns feature columns into the model's matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from tabserve.arrays import Array, Features, dense
from tabserve.bundle import libraries
from tabserve.bundle.errors import BundleError
from tabserve.bundle.files import File
from tabserve.bundle.loading import Bundle
from tabserve.bundle.manifest import FeatureSpec, PreprocessorInfo
from tabserve.engines import parity
from tabserve.engines.estimators import one_job, presenter, read
from tabserve.engines.onnxruntime import Session
from tabserve.schema import features as schema_features

Columns: TypeAlias = dict[str, Array]
Preprocess: TypeAlias = Callable[[Columns], Array]


def load_preprocessor(bundle: Bundle) -> Preprocess:
    """A function from the schema's feature columns to the model's matrix [rows, model features].

    An ONNX preprocessor loads no scikit-learn. Raises BundleError if there is none, or it does not repeat the
    reference.
    """
    info = bundle.manifest.preprocessor
    if info is None:
        raise BundleError("preprocessor", "this bundle has none", "Build the matrix from the features.")
    preprocess = open_preprocessor(bundle.read(info.file), info, bundle.manifest.libraries, bundle.trusted)
    dtype = np.float32 if bundle.manifest.model.datatype == "FP32" else np.float64
    reference = bundle.reference
    made = preprocess(schema_features.derive(bundle.schema, reference.records)).astype(dtype)
    gap = parity.differences({"": made}, {"": np.asarray(reference.features)})[""]
    if not gap <= info.tolerance:
        problem = f"differs from the reference rows by {gap:.3g}, allowed {info.tolerance:.3g}"
        raise BundleError(info.file, problem, "Save the bundle again with the installed libraries.")
    return lambda columns: _typed(preprocess(columns), dtype)


def _typed(matrix: Array, dtype: type) -> Array:
    """The matrix in the model's floating point type; numbers too large for it become infinite, and are refused."""
    with np.errstate(over="ignore"):
        return matrix.astype(dtype, copy=False)


def open_preprocessor(
    file: File, info: PreprocessorInfo, saved_with: dict[str, str], trusted: Sequence[str] = ()
) -> Preprocess:
    """A preprocessor from its file, not yet compared with the reference rows. Raises BundleError."""
    if info.format == "onnx":
        libraries.verify(libraries.OF_ENGINE["onnxruntime"], saved_with)
        session = Session(file)
        return lambda columns: session.run(given(info.features, info.frame, columns), ["matrix"])[0]
    libraries.verify(libraries.OF_ENGINE["sklearn"], saved_with)
    transformer = read(file, info.format, trusted)
    one_job(transformer)
    table = presenter(info.features, info.frame)
    return lambda columns: dense(transformer.transform(table(given(info.features, info.frame, columns))))


def given(specs: Sequence[FeatureSpec], frame: str, columns: Columns) -> Features:
    """Columns if the preprocessor selects them by name and some are text, otherwise an FP64 matrix."""
    if frame and any(spec.is_text for spec in specs):
        return {spec.name: columns[spec.name] for spec in specs}
    return schema_features.matrix(columns, specs, np.float64)
