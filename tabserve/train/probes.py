"""Make up rows on which two forms of a model are most likely to differ."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tabserve.arrays import Array
from tabserve.bundle import agreement
from tabserve.bundle.manifest import FeatureSpec
from tabserve.bundle.reference import Columns
from tabserve.schema.schema import Derived, Schema

_CANDIDATES = 400
_WITHIN = 4_000
_BEYOND = 256
_LEAST = 5e-324
"""The smallest number above 0."""
_TEXTS = ("", " ", "a", "ÄÖ ß 漢字\n\ttabs, 3.14 <b>and</b> CAPITALS")


class Probes(NamedTuple):
    """Rows within the sample, some of them where trees split; and rows beyond it, as far as the schema permits.

    A model need not answer the rows beyond: their logarithms or roots may be undefined.
    """

    within: Columns
    beyond: Columns


def probes(features: Columns, schema: Schema) -> Probes:
    """The rows for proofs, always the same for the same sample. features: the sample's columns."""
    return Probes(_within(features, schema, _WITHIN), _beyond(features, schema, _BEYOND))


def _within(features: Columns, schema: Schema, count: int) -> Columns:
    """Rows that mix the sample's values with values where a tree may split, and with their nearest neighbours."""
    random = np.random.default_rng(0)
    length = len(next(iter(features.values())))
    base = random.integers(0, length, count)
    mixed: Columns = {}
    for spec in agreement.specs(schema):
        column = features[spec.name][base]
        replaced = random.random(count) < 0.5
        candidates = _candidates(features[spec.name], spec, schema)
        column[replaced] = random.choice(candidates, int(replaced.sum()))
        mixed[spec.name] = column
    return mixed


def _beyond(features: Columns, schema: Schema, count: int) -> Columns:
    """Rows of the sample with numbers as far off as the schema permits, or float32 if the schema sets no bounds.

    Half of the rows have one such number; in the other half about every second number is one.
    """
    random = np.random.default_rng(1)
    base = random.integers(0, len(next(iter(features.values()))), count)
    made: Columns = {name: column[base] for name, column in features.items()}
    fields = [field for field in schema.record if field.type in ("number", "integer") and field.name in made]
    far = {field.name: _far(*field.bounds, whole=field.type == "integer") for field in fields} | _far_derived(schema)
    one = random.integers(0, max(1, len(far)), count)
    for index, (name, numbers) in enumerate(far.items()):
        replaced = np.where(np.arange(count) % 2 == 0, one == index, random.random(count) < 0.5)
        made[name][replaced] = random.choice(numbers, int(replaced.sum()))
    return made


def _far_derived(schema: Schema) -> dict[str, Array]:
    """The same for ratios and logarithms, whatever the fields that they come from hold."""
    found = {}
    for feature in schema.features:
        if isinstance(feature, Derived) and feature.ratio is not None:
            found[feature.name] = _far(-np.inf, np.inf)
        elif isinstance(feature, Derived) and feature.log is not None:
            least, most = np.clip(schema.fields[feature.log].bounds, _LEAST, np.finfo(np.float64).max)
            found[feature.name] = _far(float(np.log(least)), float(np.log(most)))
    return found


def _far(low: float, high: float, *, whole: bool = False) -> Array:
    """Numbers of every magnitude within bounds, and the bounds."""
    limit = float(np.finfo(np.float32).max)
    low, high = (float(np.clip(bound, -limit, limit)) for bound in (low, high))
    sizes = 10.0 ** np.arange(-2, 39)
    tried = np.concatenate([-sizes, [0.0, low, high], np.linspace(low / 2, high / 2, 3), sizes])
    tried = np.round(tried) if whole else tried
    return np.asarray(tried[(tried >= low) & (tried <= high)])


def _candidates(column: Array, spec: FeatureSpec, schema: Schema) -> Array:
    may_miss = spec.name in schema.may_miss
    if spec.type == "category":
        return np.array([*spec.values, *([None] if may_miss else [])], object)
    if spec.type == "text":
        some = np.linspace(0, len(column) - 1, min(len(column), _CANDIDATES)).astype(np.intp)
        return np.array([*column[some], *_TEXTS], object)
    present = np.unique(column[np.isfinite(column)])
    if not len(present):
        return np.array([np.nan if may_miss else 0.0])
    present = present[np.linspace(0, len(present) - 1, min(len(present), _CANDIDATES)).astype(np.intp)]
    if spec.name in schema.whole:
        between = (present[1:] + present[:-1]) / 2
        return np.concatenate([present, np.floor(between), np.ceil(between), [np.nan] if may_miss else []])
    # Trees split at a value or halfway between two neighbours, in double or in single precision.
    splits = np.concatenate([present, (present[1:] + present[:-1]) / 2])
    single = splits.astype(np.float32)
    beside = [np.nextafter(single, np.float32(side)).astype(np.float64) for side in (-np.inf, np.inf)]
    steps = [np.nextafter(splits, side) for side in (-np.inf, np.inf)]
    # Stay within the sample's range: logarithms or roots of anything beyond may be undefined.
    tried = np.clip(np.concatenate([splits, single.astype(np.float64), *beside, *steps]), present[0], present[-1])
    return np.concatenate([tried, [np.nan] if may_miss else []])
