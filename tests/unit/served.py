"""A bundle's answers to records, through both services' inputs and every engine, without sockets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import tabserve.train
from tabserve import engines
from tabserve.arrays import Array
from tabserve.bundle import Bundle
from tabserve.bundle.tensors import may_miss
from tabserve.engines.selection import open_engine
from tabserve_predictor.inputs import Inputs as PredictorInputs
from tabserve_transformer.inputs import Inputs as TransformerInputs
from tests.unit.cores import carried

MAX_ROWS = 10_000


def answers(bundle: Bundle, records: Any, outputs: Sequence[str]) -> dict[str, dict[str, Array]]:
    """Every engine's answers to records, a DataFrame or dicts, as a V1 request sends them."""
    info = bundle.manifest.model
    preprocess = engines.load_preprocessor(bundle) if bundle.manifest.preprocessor else None
    tensors = [
        carried(tensor) for tensor in TransformerInputs(bundle, preprocess, MAX_ROWS).from_body(body(records)).tensors
    ]
    features = PredictorInputs(info, may_miss(bundle), MAX_ROWS).features(tensors)
    found = [open_engine(bundle, name, 1) for name in (info.native, *(["onnxruntime"] if info.onnx else []))]  # type: ignore[arg-type]
    computed = [(engine, [name for name in outputs if name in engine.outputs]) for engine in found]
    return {engine.name: engine.run(features, names) for engine, names in computed}


def assert_serves(bundle: Bundle, records: Any, expected: dict[str, Any]) -> None:
    """Assert that every engine, and the predictor's set of engines, answers the records as expected."""
    assert not engines.load(bundle).dropped
    for name, found in answers(bundle, records, list(expected)).items():
        assert found, name
        for output, values in found.items():
            np.testing.assert_allclose(values, expected[output], rtol=1e-6, atol=1e-6, err_msg=f"{name}: {output}")


def body(records: Any) -> bytes:
    """A V1 request of records, missing values as null."""
    rows = records.to_dict("records") if isinstance(records, pd.DataFrame) else records
    instances = [{name: _json(value) for name, value in row.items()} for row in rows]
    return json.dumps({"instances": instances}).encode()


def save(model: Any, folder: Path, schema: str, sample: Any, **options: Any) -> Bundle:
    """A bundle made from a fitted model and the text of its schema."""
    folder.mkdir(exist_ok=True)
    path = folder / "schema.yaml"
    path.write_text(schema)
    options = {"name": "m", "version": "1", **options}
    return tabserve.train.save(model, folder / "bundle", schema=path, sample=sample, **options)


def _json(value: Any) -> Any:
    if value is None or value is pd.NA or value != value:
        return None
    return value.item() if hasattr(value, "item") else value
