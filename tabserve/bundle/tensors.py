"""The tensors a bundle's model takes and gives, as both services declare them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import orjson

from tabserve.arrays import Array
from tabserve.bundle.loading import Bundle
from tabserve.bundle.manifest import ClassValue, ModelInfo
from tabserve.inference.tensors import TensorSpec

MATRIX = "input-0"
"""The name of the matrix input, as in KServe's own examples."""
LABEL = "label"
"""The output that holds the class's name in the schema, made from `predict`."""

ANOMALY = ("anomaly", "normal")
"""Names for an outlier detector's classes, -1 and 1, where the schema gives none."""

_CLASS_DATATYPES = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES"}


def class_names(bundle: Bundle) -> tuple[str, ...]:
    """Names of the classes in the model's order; empty for a regression."""
    if bundle.schema.task == "anomaly":
        return bundle.schema.outputs.classes or ANOMALY
    return bundle.schema.outputs.classes or tuple(_name(value) for value in bundle.manifest.model.classes)


def _name(value: ClassValue) -> str:
    """The class's name: 0 or 1 for a boolean, so that training on booleans or on 0 and 1 gives the same labels."""
    return str(int(value) if isinstance(value, bool) else value)


def labels(model: ModelInfo, names: Sequence[str], predicted: Array) -> Array:
    """The classes' names, [rows], for a model's `predict`."""
    by_value = dict(zip(model.classes, names, strict=True))
    return np.array([by_value[value] for value in predicted.tolist()], object)


def may_miss(bundle: Bundle) -> frozenset[str]:
    """The model features that may have no value, because the model was proven to answer without them."""
    if bundle.manifest.preprocessor is None:
        return bundle.schema.may_miss
    features = np.asarray(bundle.reference.features)
    names = [spec.name for spec in bundle.manifest.model.features]
    return frozenset(name for name, missing in zip(names, np.isnan(features).any(axis=0), strict=True) if missing)


def numeric(model: ModelInfo) -> bool:
    """Whether every feature of the model is a number."""
    return all(spec.type == "number" for spec in model.features)


def input_specs(model: ModelInfo) -> tuple[TensorSpec, ...]:
    """The predictor's inputs: the matrix if every feature is a number, otherwise a column per feature."""
    if numeric(model):
        return (TensorSpec(MATRIX, model.datatype, (-1, len(model.features))),)
    return tuple(TensorSpec(spec.name, "FP64" if spec.type == "number" else "BYTES", (-1,)) for spec in model.features)


def output_specs(model: ModelInfo) -> dict[str, TensorSpec]:
    """The outputs that can be asked for, by name; datatypes and shapes are the model's, whatever the engine."""
    names = (*model.outputs, LABEL) if model.classes else model.outputs
    return {name: TensorSpec(name, _datatype(name, model), _shape(name, model)) for name in names}


def target_names(bundle: Bundle) -> dict[str, str]:
    """The metadata property that names the columns of `predict`, where it has several."""
    targets = bundle.schema.outputs.targets
    return {"targets": orjson.dumps(targets).decode()} if targets else {}


def described(specs: Iterable[TensorSpec]) -> str:
    """Describe tensors as JSON text, for metadata properties."""
    return orjson.dumps([{"name": s.name, "datatype": s.datatype, "shape": s.shape} for s in specs]).decode()


def _datatype(name: str, model: ModelInfo) -> str:
    if name == LABEL:
        return "BYTES"
    if name == "predict" and model.classes:
        return _CLASS_DATATYPES[type(model.classes[0])]
    return model.datatype


def _shape(name: str, model: ModelInfo) -> tuple[int, ...]:
    classes = len(model.classes)
    several = (classes,) if classes > 2 else (model.targets,) if model.targets > 1 else ()
    if name == "predict_proba":
        return (-1, classes)
    if name == "contributions":
        return (-1, *several, len(model.features) + 1)
    return (-1, *several) if name == "margin" or not classes else (-1,)
