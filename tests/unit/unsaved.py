"""Bundles with a schema and a manifest, but without a model or any file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tabserve.bundle.loading import Bundle
from tabserve.bundle.manifest import EngineRange, FeatureSpec, Manifest, ModelInfo, PreprocessorInfo
from tabserve.bundle.reference import Reference
from tabserve.schema.reading import parse

BINARY = """\
task: binary
record:
  - {name: amount, type: number, min: 0}
  - {name: country, type: category, values: [DE, FR], required: false}
  - {name: opened, type: timestamp}
features: [amount, country, {name: hour, hour_of: opened}]
outputs:
  classes: [accept, fraud]
  decision: {score: fraud, bands: [{from: 0.5, label: review}, {from: 0, label: accept}]}
  reasons: {top: 2, texts: {amount: unusual amount}}
"""
REGRESSION = """\
task: regression
record: [{name: size, type: number}]
features: [size]
"""
SPECS = (
    FeatureSpec("amount", "number", (), "amount"),
    FeatureSpec("country", "category", ("FR", "DE"), "country"),
    FeatureSpec("hour", "number", (), "hour"),
)
MODEL = ModelInfo(
    file="model.ubj",
    format="ubj",
    native="xgboost",
    input="matrix",
    datatype="FP32",
    features=SPECS,
    outputs=("predict", "predict_proba", "margin", "contributions"),
    default_outputs=("predict_proba",),
    engines=(EngineRange(0, "xgboost"),),
    tolerance=1e-6,
    classes=(0, 1),
    likeliest=True,
)
REGRESSOR = msgspec.structs.replace(
    MODEL, features=(FeatureSpec("size", "number", (), "size"),), outputs=("predict",), default_outputs=("predict",),
    classes=(),
)  # fmt: skip


def bundle_of(text: str, model: ModelInfo, preprocessor: PreprocessorInfo | None = None) -> Bundle:
    schema = parse(text, "schema.yaml")
    manifest = Manifest(1, "fraud", "3", "2026-01-01T00:00:00Z", schema.task, {}, {}, model, preprocessor)
    return Bundle(Path("bundle"), manifest, schema, "sha256:7", Reference({}, {}, {}, {}))
