"""Find out which feature each transformed feature comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tabserve.arrays import Array, Features, concatenate, rows, take
from tabserve.bundle.manifest import FeatureSpec
from tabserve.engines.contributions.rows import replaced

_FEWEST = 64
_MOST_VALUES = 4_000_000


def owners(transformed: Callable[[Features], Array], reference: Features, specs: Sequence[FeatureSpec]) -> Array:
    """Which transformed features change with which feature, [features, transformed], found by changing each.

    As many of the rows are tried as memory allows.
    """
    width = transformed(take(reference, slice(0, 1))).shape[1]
    some = take(reference, slice(0, max(_FEWEST, _MOST_VALUES // max(width, 1))))
    plain = transformed(some)
    changes = np.zeros((len(specs), plain.shape[1]), bool)
    for index, spec in enumerate(specs):
        for changed in _tried(
            transformed, [replaced(some, spec.name, index, each) for each in _changes(some, spec, index)]
        ):
            differs = (changed != plain) & ~(np.isnan(changed) & np.isnan(plain))
            changes[index] |= differs.any(axis=0)
    return changes


def _tried(transformed: Callable[[Features], Array], changed: Sequence[Features]) -> list[Array]:
    """What the changed features are transformed into, in one call; those with unknown values are left out."""
    whole = _known(transformed, concatenate(changed))
    if whole is not None:
        return np.split(whole, len(changed))
    return [one for each in changed if (one := _known(transformed, each)) is not None]


def _known(transformed: Callable[[Features], Array], changed: Features) -> Array | None:
    try:
        with np.errstate(all="ignore"):  # roots of made-up numbers may be undefined
            return transformed(changed)
    except (ValueError, TypeError):
        return None


def _changes(some: Features, spec: FeatureSpec, index: int) -> list[Array]:
    """Other columns for a feature: every category, or the numbers of other rows, and numbers near and far."""
    column = some[:, index] if isinstance(some, np.ndarray) else some[spec.name]
    if spec.type == "category":
        codes = isinstance(some, np.ndarray)
        return [np.full(rows(some), code if codes else value, column.dtype) for code, value in enumerate(spec.values)]
    if spec.type == "text":
        return [np.full(len(column), "", object), np.roll(column, 1), np.roll(column, len(column) // 2)]
    present = column[np.isfinite(column)]
    middle = float(np.median(present)) if len(present) else 0.0
    moved = [np.nan_to_num(column) + 1.0, np.nan_to_num(column) * 3.0 - 7.0]
    return [np.full(len(column), middle), np.roll(column, 1), *moved]
