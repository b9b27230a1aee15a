"""Save a bundle: one call after training."""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from tabserve.arrays import Features
from tabserve.bundle import agreement, histogram, libraries, loading, manifest, reference
from tabserve.bundle.errors import BundleError
from tabserve.bundle.loading import Bundle
from tabserve.bundle.manifest import (
    MANIFEST,
    REFERENCE,
    SCHEMA,
    EngineName,
    FeatureSpec,
    Manifest,
    ModelFormat,
    ModelInfo,
    PreprocessorInfo,
)
from tabserve.bundle.reference import Columns, Reference
from tabserve.engines import selection
from tabserve.inference import names
from tabserve.schema import features as schema_features
from tabserve.schema.schema import Schema
from tabserve.train import evaluating, files, mlflow, models, own, pipelines, preprocessing, proving, sampling, shape
from tabserve.train.facts import Facts, Rounds
from tabserve.train.own import Rows
from tabserve.train.probes import Probes, probes


class _Given(msgspec.Struct, frozen=True):
    """Where to save, the schema and its file, and the sample, both as given and as the schema's columns.

    evaluated: what the answers are compared on, None for nothing.
    """

    target: Path
    path: Path
    schema: Schema
    sample: Any
    records: Columns
    evaluated: evaluating.Rows | None


class _Options(msgspec.Struct, frozen=True):
    """The options of `save`."""

    name: str
    version: str
    preprocessor: Any
    engine: EngineName | None
    format: ModelFormat | None
    trusted: tuple[str, ...]
    allow_joblib: bool
    facts: Facts
    notes: tuple[str, ...] = ()


def save(
    model: Any,
    directory: str | os.PathLike[str],
    *,
    name: str,
    version: str,
    schema: str | os.PathLike[str],
    sample: Any,
    preprocessor: Any = None,
    engine: EngineName | None = None,
    format: ModelFormat | None = None,
    trusted: Sequence[str] = (),
    allow_joblib: bool = False,
    missing: float | None = None,
    rounds: Rounds | None = None,
    codes: Mapping[str, Sequence[str]] | None = None,
    labels: Any = None,
    held_out: Any = None,
) -> Bundle:
    """Write a model, and all that is needed to serve it, as a bundle; then load it again to prove it.

    model: a fitted scikit-learn, XGBoost or LightGBM model, the path of a file that XGBoost wrote, or the folder of a
    model that MLflow wrote. A pipeline that ends in XGBoost or LightGBM is split if that gives the same answers: the
    steps before the model become the preprocessor.
    directory: the bundle's folder; an older bundle there is replaced.
    name: what clients call the model: up to 60 letters, digits, `-`, `_` and `.`.
    schema: the path of schema.yaml. sample: records the model was trained on, by column (a DataFrame, a dict of lists)
    or one by one. The whole training data is best: up to 1,000 rows become the reference, and all of them the
    histograms.
    preprocessor: a fitted transformer from the schema's features to the model's.
    engine: evaluate only with this one; by default, if both engines agree, with the faster one for each number of rows.
    `onedal`, for models of XGBoost, needs the extra `onedal`, here and at load.
    format: `json` or `joblib` instead of `ubj` and `skops`; joblib needs `allow_joblib`, here and at load.
    trusted: types to store with skops besides the known safe ones; they are needed again at load.
    missing: for a Booster, the number that meant a missing value in training, as in `DMatrix(..., missing=-999)`.
    rounds: for a Booster, how many boosting rounds to predict with, or `best` for those up to where training stopped
    early. The default is all of them, as in `Booster.predict`.
    codes: by feature, categories in the order of the numbers, from 0, that the model was trained on in their place.
    held_out: records that the model was not trained on. How its answers to them are distributed, and how good they are,
    is what `tabserve monitor` compares with. Without them it compares with the sample, and raises no alarm.
    labels: what the held-out records turned out to be, or those of the sample: class names or the model's own classes,
    or the values of a regression.
    Raises BundleError.
    """
    if (problem := names.misfit(name)) is not None:
        raise BundleError("name", problem, "Give another name.")
    if mlflow.is_folder(model):
        model = mlflow.model_of(model, allow_joblib=allow_joblib, trusted=trusted)
    loaded = sampling.read_schema(Path(schema))
    records = sampling.columns(loaded, sample)
    facts = Facts(missing, rounds, codes or {})
    if isinstance(model, str | os.PathLike):
        model, facts = files.opened(Path(model), facts)
    options = _Options(name, version, preprocessor, engine, format, tuple(trusted), allow_joblib, facts)
    for kind in options.trusted:
        if kind.startswith("__main__."):
            remedy = "Move it to a module of a package, and install that wherever the bundle is loaded."
            raise BundleError("trusted", f"`{kind}` is defined in the running script, which no service has", remedy)
    given = _Given(
        Path(directory), Path(schema), loaded, sample, records, evaluating.rows(loaded, records, held_out, labels)
    )
    try:
        return _whole_or_apart(given, model, options)
    except BundleError as error:
        for what, part in (("model", model), ("preprocessor", preprocessor)):
            if error.file in ("model", "preprocessor") and not models.is_fitted(part):
                raise BundleError(what, "is not fitted", "Fit it before it is saved.") from error
        raise


def _whole_or_apart(given: _Given, model: Any, options: _Options) -> Bundle:
    """A pipeline that ends in another library's model, saved as preprocessor and model if the answers agree."""
    model = pipelines.as_predicting(model)
    apart = pipelines.take_apart(model) if options.preprocessor is None else None
    if apart is None:
        return _saved(given, model, options)
    transformer, last = apart
    try:
        return _saved(given, last, msgspec.structs.replace(options, preprocessor=transformer))
    except BundleError as error:
        # It is kept whole if that works; otherwise the error about the parts explains more.
        with contextlib.suppress(BundleError):
            return _saved(given, model, msgspec.structs.replace(options, notes=(f"pipeline: kept whole: {error}",)))
        raise


def _saved(given: _Given, model: Any, options: _Options) -> Bundle:
    target = given.target
    with _draft(target) as folder:
        shutil.copyfile(given.path, folder / SCHEMA)
        with warnings.catch_warnings():
            # About numbers far beyond the sample, which are tried.
            warnings.simplefilter("ignore", RuntimeWarning)
            _write(folder, model, given, options)
        if given.evaluated is not None:
            _evaluate(folder, given.evaluated, options)
        bundle = loading.load(folder, allow_joblib=options.allow_joblib, trusted=options.trusted)
        selection.load(bundle)
        _replace(target, folder)
    return loading.load(target, allow_joblib=options.allow_joblib, trusted=options.trusted)


def _write(folder: Path, model: Any, given: _Given, options: _Options) -> None:
    """Write every file of the bundle, `bundle.json` last."""
    schema, records = given.schema, given.records
    features = schema_features.derive(schema, records)
    rows = own.rows(schema, given.sample, features)
    tried = probes(features, schema)
    histograms = {spec.name: histogram.histogram(spec, features[spec.name]) for spec in agreement.specs(schema)}
    with proving.answering():
        preprocessor, specs, features, tried, rows = _preprocess(folder, schema, features, tried, rows, options)

    trained = models.trained(model, options.facts if preprocessor is None else options.facts.without_codes())
    form = models.file_format(options.format, trained, allow_joblib=options.allow_joblib)
    with proving.answering():
        info, truths = models.describe(trained, form, schema, specs, features, rows)
    info = msgspec.structs.replace(info, notes=(*options.notes, *info.notes))
    trained.write(folder / info.file, form)

    picked = own.evenly(records)
    shown = shape.given(info, {name: column[picked] for name, column in features.items()})
    sampled = Reference({name: column[picked] for name, column in records.items()}, shown, {}, histograms)
    contents = Manifest(1, options.name, options.version, _now(), schema.task, {}, {}, info, preprocessor)
    bundle = Bundle(folder, contents, schema, "", sampled, options.trusted)
    bundle = proving.prove(
        bundle, trained, shape.given(info, tried.within), _fitting(info, tried.beyond), truths, options.engine
    )
    reference.write(bundle.reference, folder / REFERENCE)
    _write_manifest(bundle)


def _evaluate(folder: Path, rows: evaluating.Rows, options: _Options) -> None:
    """Write the reference and the manifest again, with what the bundle's model answers to the rows."""
    bundle = loading.load(folder, allow_joblib=options.allow_joblib, trusted=options.trusted)
    bundle = evaluating.evaluated(bundle, rows)
    reference.write(bundle.reference, folder / REFERENCE)
    (folder / MANIFEST).unlink()
    _write_manifest(bundle)


def _preprocess(
    folder: Path, schema: Schema, features: Columns, tried: Probes, rows: list[Rows], options: _Options
) -> tuple[PreprocessorInfo | None, Sequence[FeatureSpec], Columns, Probes, list[Rows]]:
    """The preprocessor's entry, and what the model is given: specs, the sample's features, probes, the user's rows."""
    taken, fitted = agreement.specs(schema), options.preprocessor
    if fitted is None:
        return None, taken, features, tried, rows
    form: Literal["skops", "joblib"] = "joblib" if options.format == "joblib" else "skops"
    known = options.facts.codes
    info, tried, rows = preprocessing.save(fitted, folder, taken, tried, form, options.trusted, rows, known)
    specs = preprocessing.outputs(fitted, info, features)
    made = [preprocessing.transformed(fitted, info.features, info.frame, some) for some in (features, *tried)]
    sample, *others = ({spec.name: matrix[:, at] for at, spec in enumerate(specs)} for matrix in made)
    return info, specs, sample, Probes(*others), rows


def _fitting(info: ModelInfo, columns: Columns) -> Features:
    """Rows in the form that a model's engines take, without those that hold a number beyond its precision."""
    limit = np.finfo(np.float32 if info.datatype == "FP32" else np.float64).max
    numbers = [column for column in columns.values() if column.dtype != object]
    beyond = np.any([np.abs(column) > limit for column in numbers], axis=0) if numbers else slice(0, 0)
    return shape.given(info, {name: np.delete(column, beyond) for name, column in columns.items()})


def _write_manifest(bundle: Bundle) -> None:
    contents = bundle.manifest
    files = {path.name: manifest.entry(path) for path in sorted(bundle.path.iterdir())}
    engines = {contents.model.native, *(part.engine for part in contents.model.engines)}
    if contents.model.onnx:
        engines.add("onnxruntime")
    if contents.preprocessor is not None:
        engines.add("onnxruntime" if contents.preprocessor.format == "onnx" else "sklearn")
    needed = sorted({library for engine in engines for library in libraries.OF_ENGINE[engine]})
    versions = {library: found for library in needed if (found := libraries.installed(library)) is not None}
    contents = msgspec.structs.replace(contents, files=files, libraries=versions)
    agreement.verify(contents, bundle.schema)
    (bundle.path / MANIFEST).write_bytes(manifest.encode(contents))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@contextlib.contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A folder next to the target to write in, which is removed afterwards unless it became the target."""
    if target.exists() and not (target / MANIFEST).exists() and (not target.is_dir() or any(target.iterdir())):
        raise BundleError(str(target), "exists and is not a bundle", "Give an empty or new folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace(target: Path, folder: Path) -> None:
    """Put the draft in the target's place; readers see either the whole old bundle or the new one."""
    if not target.exists():
        folder.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    target.rename(old)
    folder.rename(target)
    shutil.rmtree(old)
