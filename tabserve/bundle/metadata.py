"""What the services say about a bundle: the metadata of the predictor and of the transformer, with their contracts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson

from tabserve.bundle.loading import Bundle
from tabserve.bundle.manifest import FeatureSpec, ModelInfo
from tabserve.bundle.model_input import largest
from tabserve.bundle.tensors import (
    class_names,
    described,
    input_specs,
    may_miss,
    numeric,
    output_specs,
    target_names,
)
from tabserve.inference.contract import Contract, JsonSchema
from tabserve.inference.tensors import ModelMetadata, TensorSpec
from tabserve.schema import json_schema
from tabserve.schema.decisions import Decisions
from tabserve.schema.records import Records


def of_transformer(bundle: Bundle, name: str = "") -> ModelMetadata:
    """The transformer's metadata. name: what clients call the model, by default the bundle's name."""
    schema, model = bundle.schema, bundle.manifest.model
    classes = class_names(bundle)
    decisions = Decisions(schema, model, classes)
    reasons = schema.outputs.reasons
    bands = {"reasons_for": orjson.dumps(reasons.for_).decode()} if reasons and reasons.for_ else {}
    identity = [TensorSpec(schema.id, "BYTES", (-1,))] if schema.id else []
    return _metadata(
        bundle,
        name,
        inputs=Records(schema).tensor_specs,
        added=(*identity, *decisions.specs),
        properties={"task": schema.task, "digest": bundle.digest, **target_names(bundle), **bands},
        contract=Contract(
            taken="record",
            given="decision",
            takes=json_schema.record(schema, _largest(model)),
            gives=json_schema.decision(schema, decisions, classes),
            sifts=True,
        ),
    )


def of_predictor(bundle: Bundle, name: str = "") -> ModelMetadata:
    """The predictor's metadata, without what depends on its engines. name: as for the transformer's."""
    model = bundle.manifest.model
    return _metadata(
        bundle,
        name,
        inputs=input_specs(model),
        properties={
            "classes": orjson.dumps(list(model.classes)).decode(),
            "task": bundle.manifest.task,
            "digest": bundle.digest,
            **target_names(bundle),
        },
        contract=Contract(takes=_instance(bundle), gives=_prediction(model)),
    )


def _metadata(
    bundle: Bundle, name: str, *, added: tuple[TensorSpec, ...] = (), properties: dict[str, str], **own: Any
) -> ModelMetadata:
    """The metadata that both services have. added: outputs after the model's own."""
    manifest, model = bundle.manifest, bundle.manifest.model
    specs = output_specs(model)
    default = [spec for output, spec in specs.items() if output in model.default_outputs]
    optional = [spec for output, spec in specs.items() if output not in model.default_outputs]
    return ModelMetadata(
        name=name or manifest.name,
        versions=(manifest.version,),
        platform=f"{model.native}_{model.format}",
        outputs=(*default, *added),
        properties={"optional_outputs": described(optional), **properties},
        **own,
    )


def _largest(model: ModelInfo) -> float:
    """The largest number that the model takes; infinite if JSON holds none beyond."""
    found = largest(model)
    return found if found < np.finfo(np.float64).max else math.inf


def _instance(bundle: Bundle) -> JsonSchema:
    """The schema of an instance: features by name, or their numbers in a row."""
    model, optional = bundle.manifest.model, may_miss(bundle)
    named = {spec.name: _feature(spec, spec.name in optional, _largest(model)) for spec in model.features}
    instance: JsonSchema = {
        "type": "object",
        "properties": named,
        "required": list(named),
        "additionalProperties": False,
    }
    if not numeric(model):
        return instance
    count = len(named)
    items = _number(["number", *(["null"] if optional else [])], _largest(model))
    row = {"type": "array", "items": items, "minItems": count, "maxItems": count}
    return {"anyOf": [row, instance]}


def _feature(spec: FeatureSpec, optional: bool, limit: float) -> JsonSchema:
    if spec.type == "category":
        return json_schema.one_of([*spec.values, *([""] if optional and "" not in spec.values else [])])
    if spec.type == "text":
        return {"type": "string", "maxLength": spec.max_length}
    return _number(["number", "boolean", *(["null"] if optional else [])], limit)


def _number(types: list[str], limit: float) -> JsonSchema:
    bounds = {"minimum": -limit, "maximum": limit} if math.isfinite(limit) else {}
    return {"type": types, **bounds}


def _prediction(model: ModelInfo) -> JsonSchema:
    """The schema of `predict` for one row."""
    if model.classes:
        return json_schema.one_of(model.classes)
    if model.targets == 1:
        return json_schema.FINITE
    return {
        "type": "array",
        "items": json_schema.FINITE,
        "minItems": model.targets,
        "maxItems": model.targets,
    }
