"""Which module explains a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tabserve.arrays import Array, Features
from tabserve.bundle.manifest import FeatureSpec
from tabserve.engines.contributions import linear, trees


def contributor(
    model: Any, present: Callable[[Features], Any], reference: Features, specs: Sequence[FeatureSpec]
) -> Callable[[Features], Array] | None:
    """What computes exact contributions, None where nothing here does."""
    return linear.contributor(model, present, reference, specs) or trees.contributor(model, present, reference, specs)
