"""Run `tabserve schema draft` and `tabserve bundle save` with their options."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from tabserve.bundle import formats
from tabserve.bundle.errors import BundleError, UntrustedError
from tabserve.bundle.files import File
from tabserve.bundle.manifest import ModelFormat
from tabserve.engines import estimators
from tabserve.schema.schema import Task
from tabserve.train import drafting, mlflow, sampling, saving, tables

FORMATS = get_args(ModelFormat)
_IN_A_SCRIPT = re.compile(r"attribute '(\w+)' on <module '(?:\w+\.)*__main__'")
_IN_OPTIONS = (
    (r'missing=float\("nan"\)', "--missing nan"),
    (r"Pass missing=(\S+) to save", r"Give --missing \1"),
    (r'Pass codes=\{"(.+?)": \[\.\.\.\]\} to save', r"Give --codes '\1=…,…'"),
    (r"pass allow_joblib=True", "give --allow-joblib"),
    (r"allow_joblib=True", "--allow-joblib"),
)
"""What errors call the arguments of `tabserve.train.save`, and the options in their place."""


def draft(source: Path, target: str | None, sample: Path | None, task: Task | None) -> str:
    """The text of a schema for an MLflow model's folder, or for a file of records. Raises BundleError."""
    if source.is_dir():
        values = {} if sample is None else tables.read(sample).columns
        texts = {name: [str(value) for value in column if value is not None] for name, column in values.items()}
        return drafting.of_signature(mlflow.signature(source), mlflow.outputs(source), texts, task)
    return drafting.of_table(tables.read(source), target, task)


def save(
    model: Path,
    directory: Path,
    *,
    schema: Path,
    sample: Path,
    held_out: Path | None,
    label: str | None,
    preprocessor: Path | None,
    codes: Sequence[str],
    rounds: str | None,
    trusted: Sequence[str],
    **options: Any,
) -> str:
    """Save a model in a file as a bundle, and say what was written. Raises BundleError in the words of the options."""
    try:
        described = sampling.read_schema(schema)
        records = tables.sample(sample, described)
        others = None if held_out is None else tables.sample(held_out, described)
        saved = saving.save(
            opened(model, trusted),
            directory,
            schema=schema,
            sample=records,
            held_out=others,
            labels=None if label is None else _column(records if others is None else others, label),
            preprocessor=None if preprocessor is None else opened(preprocessor, trusted),
            codes=_codes(codes),
            rounds="best" if rounds == "best" else None if rounds is None else int(rounds),
            trusted=trusted,
            **options,
        )
    except UntrustedError as error:
        raise error.on_command_line() from error
    except BundleError as error:
        raise BundleError(error.file, error.problem, in_options(error.remedy)) from error
    manifest = saved.manifest
    outputs = ", ".join(manifest.model.outputs)
    return f"{saved.path}: {manifest.name} {manifest.version} ({manifest.task}), {outputs}\ndigest {saved.digest}"


def _column(records: Mapping[str, list[Any]], name: str) -> list[Any]:
    if name not in records:
        got = ", ".join(records)
        raise BundleError("label", f"expected a column of the records, got {name!r}", f"Give one of these: {got}.")
    return records[name]


def opened(path: Path, trusted: Sequence[str]) -> Any:
    """The model in a joblib, pickle or skops file, or an MLflow folder; the path of any other. Raises BundleError."""
    if mlflow.is_folder(path):
        return mlflow.model_of(path, allow_joblib=True, trusted=trusted)
    if not path.is_file() or (found := formats.recognise(path)) not in ("joblib", "skops"):
        return str(path)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = _read(path, found, trusted)
    for version in sorted({_older(each.message) for each in told} - {""}):
        click.echo(
            f"{path.name} was written by {version}: compare the bundle's answers with those it gave there, or train it "
            'again ("A model that is older", docs/install.md).',
            err=True,
        )
    return model


def _read(path: Path, form: str, trusted: Sequence[str]) -> Any:
    try:
        return estimators.read(File.of(path), form, trusted)
    except UntrustedError:
        raise
    except BundleError as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            raise
        defined = _IN_A_SCRIPT.search(error.problem)
        if defined is None:
            remedy = "Write the file again, with the libraries that are installed here."
            raise BundleError(error.file, error.problem, remedy) from error
        problem = f"was written by a script that defines `{defined[1]}` itself"
        remedy = (
            "Put it into a module of its own, import it from there in the script, and write the file again "
            "(docs/your-model.md)."
        )
        raise BundleError(error.file, problem, remedy) from error


def in_options(remedy: str) -> str:
    """A remedy in the words of somebody who runs `tabserve bundle save`."""
    for argument, option in _IN_OPTIONS:
        remedy = re.sub(argument, option, remedy)
    return remedy


def _older(message: Warning | str) -> str:
    """The library that wrote a model, according to scikit-learn's warning about another version; or empty."""
    version = getattr(message, "original_sklearn_version", None)
    return "" if version is None else f"scikit-learn {version}, not by {message.current_sklearn_version}"  # type: ignore[union-attr]


def _codes(given: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Categories by feature, from `name=first,second`. Raises BundleError."""
    found = {}
    for text in given:
        name, equals, values = text.partition("=")
        if not equals or not name or not values:
            raise BundleError("codes", f"expected NAME=VALUE,VALUE,…, got {text!r}", "Give it as --codes kind=a,b,c.")
        found[name] = values.split(",")
    return found
