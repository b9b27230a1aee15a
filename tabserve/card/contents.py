"""What a card holds, all of it from the bundle and, for its quality, from records with their outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tabserve import __version__, bundle
from tabserve.bundle import Bundle, BundleError, evaluation
from tabserve.bundle.checking import Finding
from tabserve.bundle.evaluation import Evaluation
from tabserve.bundle.histogram import Histogram
from tabserve.bundle.manifest import FileEntry, ModelInfo, PreprocessorInfo
from tabserve.bundle.tensors import class_names
from tabserve.card import quality
from tabserve.card.quality import Measured, Quality
from tabserve.monitor import equity
from tabserve.schema import ranges
from tabserve.schema.groups import grouped
from tabserve.schema.ranges import Range
from tabserve.schema.schema import Schema, Task

FORMAT = 1
ALPHA = 0.05
"""The probability that any interval of a card is wrong."""


class Distribution(msgspec.Struct, frozen=True):
    """How a feature was distributed. edges: of a number's bins [counts + 1], both ends included. values: a category's.

    missing: rows without a value.
    """

    edges: list[float]
    values: list[str]
    counts: list[int]
    missing: int


class Card(msgspec.Struct, frozen=True):
    """What `card.json` holds; the same bundle and records make the same card.

    bands: of the score, from the lowest up. histograms: of the training data, by feature.
    quality: on the records that `save` was given, and on those of `--labels`. equity: on the latter.
    proof: what `bundle check` found. missing: what is not known, and how to get it.
    """

    format: int
    tabserve: str
    name: str
    version: str
    task: Task
    created: str
    digest: str
    intended_use: str | None
    limits: str | None
    schema: Schema
    classes: list[str]
    bands: list[Range]
    histograms: dict[str, Distribution]
    quality: list[Quality]
    equity: list[equity.Statement]
    model: ModelInfo
    preprocessor: PreprocessorInfo | None
    proof: list[Finding]
    libraries: dict[str, str]
    files: dict[str, FileEntry]
    missing: list[str]
    alpha: float = ALPHA


def of_folder(
    path: Path,
    labels: Path | None,
    label: str,
    *,
    digest: str | None,
    signed_by: str | None,
    allow_joblib: bool,
    trusted: Sequence[str],
) -> Card:
    """The card of the bundle in a folder.

    labels: a file of records, whose column `label` says what each turned out to be; None for none. The other arguments
    are as in `tabserve.bundle.load`. Raises BundleError, also if the bundle does not pass its check.
    """
    proof = bundle.check(path, digest=digest, allow_joblib=allow_joblib, trusted=trusted, signed_by=signed_by)
    for finding in proof:
        if not finding.ok:
            raise BundleError(finding.check, finding.detail, "A bundle has a card when `tabserve bundle check` passes.")
    found = bundle.load(path, digest=digest, allow_joblib=allow_joblib, trusted=trusted, signed_by=signed_by)
    return of_bundle(found, proof, None if labels is None else quality.measured(found, labels, label, ALPHA))


def of_bundle(found: Bundle, proof: list[Finding], measured: Measured | None) -> Card:
    """The card of a bundle. proof: what its check found. measured: on records with their outcomes, None without."""
    stored = found.reference.evaluation
    known = [] if stored is None else [quality.of_evaluation(quality.SAVED, stored, _decisions(found))]
    manifest, schema = found.manifest, found.schema
    return Card(
        format=FORMAT,
        tabserve=__version__,
        name=manifest.name,
        version=manifest.version,
        task=manifest.task,
        created=manifest.created,
        digest=found.digest,
        intended_use=schema.intended_use,
        limits=schema.limits,
        schema=schema,
        classes=list(class_names(found)),
        bands=ranges.of_schema(schema),
        histograms={name: _distribution(each) for name, each in found.reference.histograms.items()},
        quality=known + ([] if measured is None else [measured.quality]),
        equity=[] if measured is None else measured.equity,
        model=manifest.model,
        preprocessor=manifest.preprocessor,
        proof=proof,
        libraries=manifest.libraries,
        files=manifest.files,
        missing=missing(schema, stored, measured is not None),
    )


def _decisions(found: Bundle) -> tuple[str, ...]:
    return evaluation.decision_names(found.schema, class_names(found))


def _distribution(found: Histogram) -> Distribution:
    bounds: list[Any] = found.bounds.tolist()
    edges, values = ([], bounds) if found.bounds.dtype.kind == "U" else (bounds, [])
    return Distribution(edges, values, found.counts.tolist(), found.missing)


def missing(schema: Schema, stored: Evaluation | None, labelled: bool) -> list[str]:
    """What a card cannot say, and how it could."""
    told = []
    for key, text in (("intended_use", schema.intended_use), ("limits", schema.limits)):
        if not text:
            told.append(f"{key.replace('_', ' ')}: write `{key}` into schema.yaml, and save the bundle again")
    if stored is None or not stored.held_out or stored.outcomes is None:
        told.append(
            "how good the answers are on records that the model was not trained on: save the bundle with held_out=… "
            "and labels=… (tabserve.train.save)"
        )
    if not grouped([field for field in schema.record if field.use == "audit"]):
        told.append("equity: the schema has no category or boolean with `use: audit`")
    elif not labelled:
        told.append("equity: give --labels, a file of records with audited fields and what each turned out to be")
    return told


def encoded(card: Card) -> bytes:
    """`card.json`."""
    return msgspec.json.format(msgspec.json.encode(card), indent=1) + b"\n"
