"""Verify arrays of a model from a file: scikit-learn's native code follows their shapes and numbers unchecked."""

from __future__ import annotations

from typing import Any

import numpy as np

from tabserve.arrays import Array
from tabserve.engines import skops_types


def verify(model: Any) -> None:
    """Refuse neighbours, support vectors, centres and boosting stages that do not fit each other. Raises ValueError."""
    for width, part in skops_types.parts(model):
        if hasattr(part, "_fit_X") and hasattr(part, "n_samples_fit_"):
            _verify_neighbours(part, width)
        if hasattr(part, "support_vectors_"):
            _verify_support(part, width)
        if hasattr(part, "cluster_centers_"):
            _expect("cluster centres", np.shape(part.cluster_centers_)[1:], (width,))
        if hasattr(part, "n_trees_per_iteration_") and hasattr(part, "estimators_"):
            _verify_stages(part, width)


def _verify_neighbours(model: Any, width: int) -> None:
    """The rows that the model was fitted on, and the position of each row's class among the classes."""
    rows = int(model.n_samples_fit_)
    _expect("neighbours", model._fit_X.shape, (rows, width))
    if not hasattr(model, "classes_"):
        return
    several = isinstance(model.classes_, list)
    places = np.asarray(model._y)
    _expect("neighbours' classes", places.shape[:1], (rows,))
    for column, classes in zip(
        places.reshape(rows, -1).T, model.classes_ if several else [model.classes_], strict=True
    ):
        _verify_places("neighbours' classes", column, len(classes))


def _verify_support(model: Any, width: int) -> None:
    """Support vectors, their number per class, and the coefficients for each pair of classes."""
    classifies, precomputed = hasattr(model, "classes_"), model.kernel == "precomputed" or callable(model.kernel)
    count, counts, coefficients = len(model.support_), np.asarray(model._n_support), model._dual_coef_
    classes = len(counts) if classifies else 2
    pairs = classes * (classes - 1) // 2
    if (counts < 0).any() or (counts.sum() if classifies else counts[0]) != count:
        raise ValueError("support vectors: their number does not match their classes")
    _expect("support vectors' coefficients", coefficients.shape, (classes - 1, count))
    if hasattr(coefficients, "indptr"):
        _expect("support vectors' coefficients", np.shape(coefficients.data), ((classes - 1) * count,))
    _expect("support vectors' intercepts", np.shape(model._intercept_), (pairs,))
    for probabilities in (model._probA, model._probB):
        if np.size(probabilities) not in (0, pairs):
            raise ValueError("support vectors: probabilities for the wrong pairs of classes")
    if precomputed:
        _verify_places("support vectors", np.asarray(model.support_), int(model.shape_fit_[0]))
    else:
        _expect("support vectors", model.support_vectors_.shape, (count, width))


def _verify_stages(model: Any, width: int) -> None:
    """Boosting stages must have the columns of the first estimate, to which they are added."""
    stages = int(model.n_trees_per_iteration_)
    _expect("boosting stages", np.shape(model.estimators_)[1:], (stages,))
    first = model._raw_predict_init(np.zeros((2, width), np.float32))
    _expect("boosting's first estimate", first.shape, (2, stages))


def _verify_places(what: str, places: Array, count: int) -> None:
    if places.dtype.kind not in "iu" or (places < 0).any() or (places >= count).any():
        raise ValueError(f"{what}: expected places from 0 to {count - 1}")


def _expect(what: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if tuple(shape) != expected:
        raise ValueError(f"{what}: expected shape {list(expected)}, got {list(shape)}")
