"""Give feature columns the shape that a model's engines take."""

from __future__ import annotations

import numpy as np

from tabserve.arrays import Features
from tabserve.bundle.manifest import ModelInfo
from tabserve.bundle.reference import Columns
from tabserve.schema import features as schema_features


def given(info: ModelInfo, features: Columns) -> Features:
    """The feature columns in the form that a model's engines take."""
    if info.input == "columns":
        return {spec.name: features[spec.name] for spec in info.features}
    dtype = np.float32 if info.datatype == "FP32" else np.float64
    return schema_features.matrix(features, info.features, dtype)
