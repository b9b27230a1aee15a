"""Categories that a model was trained on as numbers of its user's own: in which order?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from tabserve.arrays import Array
from tabserve.bundle.errors import BundleError
from tabserve.bundle.manifest import FeatureSpec
from tabserve.bundle.reference import Columns

Specs = tuple[FeatureSpec, ...]


def told(specs: Sequence[FeatureSpec], codes: Mapping[str, Sequence[str]]) -> Specs:
    """The features, with their categories in the order that `save` was told. Raises BundleError."""
    categories = {spec.name: spec.values for spec in specs if spec.type == "category"}
    for name, values in codes.items():
        if name not in categories:
            raise BundleError("codes", f"`{name}` is no category of the schema", f"Name some of {sorted(categories)}.")
        if len(set(values)) < len(values) or not set(categories[name]) <= set(values):
            problem = f"`{name}`: expected each of {', '.join(categories[name])} once, got {', '.join(values)}"
            raise BundleError("codes", problem, "Give the categories in the order of their numbers, from 0.")
    return tuple(
        msgspec.structs.replace(spec, values=tuple(codes[spec.name])) if spec.name in codes else spec for spec in specs
    )


def orders(specs: Sequence[FeatureSpec], names: Sequence[str], features: Columns, frame: Any) -> list[Specs]:
    """The orders that the categories of the named features are likely to have been numbered in, all in the same way.

    They are the schema's, the sorted one (LabelEncoder, OrdinalEncoder, `.cat.codes`), that of the sample's dtype, of
    the first appearance (`pandas.factorize`), and of frequency. frame: the sample.
    """
    ways = [[_ordered(spec, features[spec.name], _dtype(frame, spec.name))[way] for spec in specs] for way in range(5)]
    found = [
        tuple(
            msgspec.structs.replace(spec, values=values) if spec.name in names else spec
            for spec, values in zip(specs, way, strict=True)
        )
        for way in ways
    ]
    return list(dict.fromkeys(one for one in found if all(spec.values for spec in one if spec.name in names)))


def found(
    repeated: Callable[[Specs], bool],
    specs: Sequence[FeatureSpec],
    given: Mapping[str, Sequence[str]],
    sample: Columns,
    frame: Any,
) -> Specs:
    """The features of a model that takes numbers for all categories, in the order that it tells, or `save` was told.

    repeated: whether it tells that it was trained on the sample's rows, if the categories have this order. frame: the
    sample. Raises BundleError where neither does.
    """
    specs = told(specs, given)
    names = [spec.name for spec in specs if spec.type == "category" and spec.name not in given]
    if not names:
        return specs
    right = [order for order in orders(specs, names, sample, frame) if repeated(order)]
    if len(right) != 1:
        raise unknown(names)
    return right[0]


def verify_none(codes: Mapping[str, Sequence[str]]) -> None:
    """Refuse codes of features whose categories the model knows itself. Raises BundleError."""
    for name in codes:
        raise BundleError("codes", f"the model knows the categories of `{name}` themselves", "Leave it out.")


def unknown(names: Sequence[str]) -> BundleError:
    """What to say where the order can't be found."""
    listed = ", ".join(f"`{name}`" for name in names)
    problem = f"was trained on numbers in the place of {listed}, and the sample does not tell which category has which"
    example = f'codes={{"{names[0]}": [...]}}'
    remedy = (
        f"Pass {example} to save, the categories in the order of their numbers from 0, or train it on "
        "tabserve.train.features(schema, records)."
    )
    return BundleError("model", problem, remedy)


def _ordered(spec: FeatureSpec, column: Array, dtype: Sequence[str]) -> list[tuple[str, ...]]:
    """Every order of one feature's categories, () where it lacks some."""
    if spec.type != "category":
        return [()] * 5
    present = [value for value in column.tolist() if value is not None]
    first = tuple(dict.fromkeys(present))
    frequent = tuple(value for value, _ in Counter(present).most_common())
    ways = [spec.values, tuple(sorted(spec.values)), tuple(dtype), first, frequent]
    return [way if set(spec.values) <= set(way) else () for way in ways]


def _dtype(frame: Any, name: str) -> list[str]:
    if not hasattr(frame, "columns") or name not in frame or frame[name].dtype != "category":
        return []
    return [str(value) for value in frame[name].cat.categories]
