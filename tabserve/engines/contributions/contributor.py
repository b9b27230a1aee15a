"""Choose the module that explains a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tabserve.arrays import Array, Features
from tabserve.bundle.manifest import FeatureSpec
from tabserve.engines.contributions import linear, trees


def contributor(
    model: Any, present: Callable[[Features], Any], reference: Features, specs: Sequence[FeatureSpec]
) -> Callable[[Features], Array] | None:
    """The function that computes a model's exact contributions, None if no module here can."""
    return linear.contributor(model, present, reference, specs) or trees.contributor(model, present, reference, specs)
