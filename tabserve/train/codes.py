"""Find the order of categories that a model was trained on as the user's own numbers."""

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
    """The features, with their categories in the order given to `save`. Raises BundleError."""
    categories = {spec.name: spec.values for spec in specs if spec.type == "category"}
    for name, values in codes.items():
        if name not in categories:
            raise BundleError(
                "codes", f"`{name}` is not a category in the schema", f"Use names from {sorted(categories)}."
            )
        if len(set(values)) < len(values) or not set(categories[name]) <= set(values):
            problem = f"`{name}`: expected each of {', '.join(categories[name])} once, got {', '.join(values)}"
            raise BundleError("codes", problem, "Give the categories in the order of their numbers, from 0.")
    return tuple(
        msgspec.structs.replace(spec, values=tuple(codes[spec.name])) if spec.name in codes else spec for spec in specs
    )


def orders(specs: Sequence[FeatureSpec], names: Sequence[str], features: Columns, frame: Any) -> list[Specs]:
    """The likely orders in which the categories of the named features were numbered, all features in the same way.

    They are the schema's order, the sorted one (LabelEncoder, OrdinalEncoder, `.cat.codes`), the order in the sample's
    dtype, the order of first appearance (`pandas.factorize`), and the order of frequency. frame: the sample.
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
    """The features of a model that takes numbers for all categories, in the order that it shows or `save` was given.

    repeated: whether the model shows that it was trained on the sample's rows, if the categories have this order.
    frame: the sample. Raises BundleError if the order is neither shown nor given.
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
    """Refuse codes for features whose categories the model itself knows. Raises BundleError."""
    for name in codes:
        raise BundleError("codes", f"the model itself knows the categories of `{name}`", "Leave it out.")


def unknown(names: Sequence[str]) -> BundleError:
    """The error for an order that can't be found."""
    listed = ", ".join(f"`{name}`" for name in names)
    problem = (
        f"was trained on numbers in place of {listed}, and the sample does not show which number is which category"
    )
    example = f'codes={{"{names[0]}": [...]}}'
    remedy = (
        f"Pass {example} to save, the categories in the order of their numbers from 0, or train it on "
        "tabserve.train.features(schema, records)."
    )
    return BundleError("model", problem, remedy)


def _ordered(spec: FeatureSpec, column: Array, dtype: Sequence[str]) -> list[tuple[str, ...]]:
    """Every likely order of one feature's categories; () in place of an order that misses some."""
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
