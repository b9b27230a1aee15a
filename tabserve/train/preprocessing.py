"""Save a fitted preprocessor: what it takes, what it gives, and its ONNX form if that is faithful."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from tabserve.arrays import Array, Features, concatenate, dense, take
from tabserve.bundle.errors import BundleError
from tabserve.bundle.files import File
from tabserve.bundle.manifest import FeatureSpec, PreprocessorInfo
from tabserve.bundle.reference import Columns
from tabserve.engines import parity
from tabserve.engines.contributions.sources import owners
from tabserve.engines.estimators import presenter
from tabserve.engines.preprocessor import given, open_preprocessor
from tabserve.train import causes, codes, presentation, repeating, sklearn_model
from tabserve.train.onnx import conversion
from tabserve.train.own import Rows
from tabserve.train.presentation import FAILURES, Presentation, Truth
from tabserve.train.probes import Probes

_ONNX = "preprocessor.onnx"
_FEW = slice(0, 64)


def save(
    preprocessor: Any,
    folder: Path,
    specs: Sequence[FeatureSpec],
    probes: Probes,
    form: Literal["skops", "joblib"],
    trusted: Sequence[str],
    rows: Sequence[Rows],
    known: Mapping[str, Sequence[str]],
) -> tuple[PreprocessorInfo, Probes, list[Rows]]:
    """Write a preprocessor as ONNX if that repeats it, otherwise in its own form. Raises BundleError.

    specs: what it takes. probes: rows to compare the written form with the one in memory. rows: the user's own.
    Rows come back as the model was given them, and probes without those far-off rows that the preprocessor fails on.
    known: categories in the order of the numbers that it takes for them.
    """
    sklearn_model.verify_names(preprocessor, specs)
    asked, named = partial(_ask, preprocessor), hasattr(preprocessor, "feature_names_in_")
    if presentation.takes_codes(preprocessor, asked, specs, rows[0], named=named):
        specs = codes.found(lambda _: False, specs, known, rows[0].columns, rows[0].frames[0])
    else:
        codes.verify_none(known)
    truths = presentation.truths(preprocessor, asked, specs, rows, named=named)
    repeating.verify(preprocessor, asked, truths[0].table)
    found = presentation.find(asked, specs, rows, truths, named=named)
    run = partial(transformed, preprocessor, found.features, found.frame)
    probes = Probes(probes.within, cast(Columns, causes.answered(run, probes.beyond)))
    info = _written(preprocessor, folder, found, probes, form, trusted)
    return info, probes, [_made(preprocessor, info, some, truth) for some, truth in zip(rows, truths, strict=True)]


def _written(
    preprocessor: Any,
    folder: Path,
    found: Presentation,
    probes: Probes,
    form: Literal["skops", "joblib"],
    trusted: Sequence[str],
) -> PreprocessorInfo:
    specs, frame = found.features, found.frame
    run = partial(transformed, preprocessor, specs, frame)
    tried = cast(Columns, concatenate((probes.within, probes.beyond)))
    try:
        expected = run(tried)
    except FAILURES as error:
        raise causes.refusal("preprocessor", error, run, tried, specs) from error
    info = PreprocessorInfo(_ONNX, "onnx", specs, frame)
    try:
        conversion.convert_preprocessor(preprocessor, specs, frame, folder / _ONNX)
        gap = _gap(folder, info, tried, expected, trusted)
        if gap <= info.tolerance:
            return info
        reason = f"differs by {gap:.3g}, allowed {info.tolerance:.3g}"
    except conversion.NotInstalledError:
        raise
    except conversion.failures() as error:
        reason = str(error).splitlines()[0]
    (folder / _ONNX).unlink(missing_ok=True)
    notes = (f"onnx: not converted: {reason}",)
    info = PreprocessorInfo(f"preprocessor.{form}", form, specs, frame, notes=notes)
    sklearn_model.write(preprocessor, folder / info.file, form)
    if (gap := _gap(folder, info, tried, expected, trusted)) > info.tolerance:
        raise BundleError(info.file, f"reads back with a difference of {gap:.3g}", "Save it with joblib.")
    return info


def outputs(preprocessor: Any, info: PreprocessorInfo, columns: Columns) -> tuple[FeatureSpec, ...]:
    """The features that a preprocessor gives: names, and the feature each is made from, "" if there are several."""

    def matrix(features: Features) -> Array:
        if isinstance(features, np.ndarray):
            raise TypeError("a preprocessor takes columns")
        return transformed(preprocessor, info.features, info.frame, features)

    made_from = owners(matrix, take(columns, _FEW), info.features)
    names = _names(preprocessor, made_from.shape[1])
    sources = (np.flatnonzero(changed) for changed in made_from.T)
    return tuple(
        FeatureSpec(name, "number", (), info.features[source[0]].name if len(source) == 1 else "")
        for name, source in zip(names, sources, strict=True)
    )


def transformed(preprocessor: Any, specs: Sequence[FeatureSpec], frame: str, columns: Columns) -> Array:
    """The matrix that the transformer in memory makes from feature columns."""
    return dense(preprocessor.transform(presenter(specs, frame)(given(specs, frame, columns))))


def _ask(preprocessor: Any, table: Any) -> dict[str, Array]:
    return {"matrix": dense(preprocessor.transform(table))}


def _made(preprocessor: Any, info: PreprocessorInfo, rows: Rows, truth: Truth) -> Rows:
    """Rows as the model will be served them, and as it was given them, from the transformer and the user's table."""
    matrix = transformed(preprocessor, info.features, info.frame, rows.columns)
    columns = dict(zip(_names(preprocessor, matrix.shape[1]), matrix.T, strict=True))
    return Rows(rows.what, columns, (preprocessor.transform(truth.table),), rows.remedy)


def _names(preprocessor: Any, count: int) -> list[str]:
    try:
        names = [str(name) for name in preprocessor.get_feature_names_out()]
    except (AttributeError, ValueError):
        names = []
    return names if len(names) == count else [f"f{index}" for index in range(count)]


def _gap(folder: Path, info: PreprocessorInfo, probes: Columns, expected: Array, trusted: Sequence[str]) -> float:
    made = open_preprocessor(File.of(folder / info.file), info, {}, trusted)(probes)
    return parity.differences({"": made.astype(np.float64)}, {"": expected})[""]
