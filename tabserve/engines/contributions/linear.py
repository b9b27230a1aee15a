"""Exact contributions of a linear model at the end of a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tabserve.arrays import Array, Features, dense
from tabserve.bundle.manifest import FeatureSpec
from tabserve.engines.contributions.separate import separated
from tabserve.engines.contributions.sources import owners


class LinearContributions:
    """Coefficient times centred transformed feature, summed over what each source feature was transformed into.

    For independent features these are the SHAP values of the margin (Štrumbelj and Kononenko 2014), with the reference
    rows as background. Transformed features that no single feature accounts for, and that never varied, go to the bias.
    """

    def __init__(
        self,
        model: Any,
        present: Callable[[Features], Any],
        reference: Features,
        specs: Sequence[FeatureSpec],
    ) -> None:
        """Raises ValueError if the model is not linear, or mixes features before its last step."""
        steps = getattr(model, "steps", None)
        self._present, self._before = present, model[:-1] if steps and len(steps) > 1 else None
        final = steps[-1][1] if steps else model
        if not hasattr(final, "coef_") or not hasattr(final, "intercept_"):
            raise ValueError("not a linear model")
        self._coefficients = dense(final.coef_).reshape(-1, dense(final.coef_).shape[-1])
        self._intercept = np.asarray(final.intercept_, np.float64).reshape(-1)
        background = self._transformed(reference)
        if background.shape[1] != self._coefficients.shape[1]:
            raise ValueError("the coefficients do not match the transformed features")
        self._mean = background.mean(axis=0)
        self._owned = owners(self._transformed, reference, specs).T.astype(np.float64)
        if (self._owned.sum(axis=1) > 1).any():
            raise ValueError("a step before the linear model mixes features")
        self._unowned = 1.0 - self._owned.sum(axis=1)
        self._separate = separated(self._by_transform, self._before, reference, specs)

    def __call__(self, features: Features) -> Array:
        """The contributions, [rows, features + 1] or [rows, classes, features + 1]."""
        result = self._separate(features) if self._separate else self._by_transform(features)
        return result[:, 0] if result.shape[1] == 1 else result

    def _by_transform(self, features: Features) -> Array:
        """The contributions [rows, classes, features + 1], computed with scikit-learn's transformers."""
        parts = (self._transformed(features) - self._mean)[:, None, :] * self._coefficients
        bias = self._intercept + self._coefficients @ self._mean + parts @ self._unowned
        return np.concatenate([parts @ self._owned, bias[:, :, None]], axis=2)

    def _transformed(self, features: Features) -> Array:
        table = self._present(features)
        return dense(table if self._before is None else self._before.transform(table))


def contributor(
    model: Any, present: Callable[[Features], Any], reference: Features, specs: Sequence[FeatureSpec]
) -> Callable[[Features], Array] | None:
    """The contributions of a linear model, None if the model is not one."""
    try:
        return LinearContributions(model, present, reference, specs)
    except ValueError:
        return None
