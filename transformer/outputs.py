"""The predictor's outputs, for the transformer's metadata."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from tabserve.bundle.manifest import ModelInfo
from tabserve.inference.tensors import TensorSpec


def output_specs(model: ModelInfo) -> dict[str, TensorSpec]:
    """Everything the predictor can be asked for, by name, as its own metadata declares it."""
    names = (*model.outputs, *(["label"] if model.classes else []))
    return {name: TensorSpec(name, _datatype(name, model), _shape(name, model)) for name in names}


def described(specs: Sequence[TensorSpec]) -> str:
    """Tensors as JSON text, for metadata properties."""
    return orjson.dumps([{"name": s.name, "datatype": s.datatype, "shape": s.shape} for s in specs]).decode()


def _datatype(name: str, model: ModelInfo) -> str:
    if name == "label":
        return "BYTES"
    if name == "predict" and model.classes:
        return {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES"}[type(model.classes[0])]
    return model.datatype


def _shape(name: str, model: ModelInfo) -> tuple[int, ...]:
    classes = len(model.classes)
    several = (classes,) if classes > 2 else ()
    if name == "predict_proba":
        return (-1, classes)
    if name == "contributions":
        return (-1, *several, len(model.features) + 1)
    return (-1, *several) if name == "margin" else (-1,)
