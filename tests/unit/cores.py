"""Both services' cores in this process: a transformer that asks a predictor with the same bundle."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import numpy as np
import orjson
import pandas as pd

from tabserve import engines
from tabserve.arrays import Array
from tabserve.bundle import Bundle
from tabserve.decision_log.entry import Log
from tabserve.inference.metrics import Metrics
from tabserve.inference.model import Context
from tabserve.inference.tensors import (
    DATATYPES,
    InferRequest,
    InferResponse,
    RequestedOutput,
    Tensor,
    binary_elements,
    elements_binary,
    text,
)
from tabserve_predictor import model as predictor
from tabserve_predictor.settings import Settings as PredictorSettings
from tabserve_transformer.model import Transformer
from tabserve_transformer.settings import Settings as TransformerSettings


class _InProcess:
    """The predictor, called without a socket."""

    ready = True

    def __init__(self, model: predictor.Predictor) -> None:
        self._model = model

    async def start(self) -> None:
        """Do nothing, because there is nothing to look for."""

    async def stop(self) -> None:
        """Do nothing, because there is nothing to close."""

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        """Send and return tensors as bytes, as between two pods."""
        sent = msgspec.structs.replace(request, inputs=tuple(carried(tensor) for tensor in request.inputs))
        answered = await self._model.infer(sent, context)
        return msgspec.structs.replace(answered, outputs=tuple(carried(tensor) for tensor in answered.outputs))


def carried(tensor: Tensor) -> Tensor:
    """A tensor as it arrives at the other service, text as bytes."""
    array = tensor.array
    made = binary_elements(elements_binary(array), DATATYPES[tensor.datatype], array.shape)
    return Tensor(tensor.name, tensor.datatype, made)


class Cores:
    """Records in, decisions out, as from the services. log: of decisions; settings: the transformer's."""

    def __init__(self, bundle: Bundle, log: Log | None = None, **settings: Any) -> None:
        self.predictor = predictor.load(bundle, PredictorSettings(threads=1), Metrics())
        preprocess = None if bundle.manifest.preprocessor is None else engines.load_preprocessor(bundle)
        chosen = TransformerSettings(predictor_host="localhost", **settings)
        self.transformer = Transformer(bundle, _InProcess(self.predictor), chosen, Metrics(), preprocess, log)

    def predictions(self, frame: pd.DataFrame) -> list[dict[str, Any]]:
        """V1's answers about a frame's rows, sent as JSON records with null for a missing value."""
        body = orjson.dumps({"instances": orjson.loads(frame.to_json(orient="records", double_precision=15))})
        found: list[dict[str, Any]] = orjson.loads(asyncio.run(self.transformer.predict(body, Context())))[
            "predictions"
        ]
        return found

    def outputs(self, frame: pd.DataFrame, *names: str) -> dict[str, Array]:
        """V2's named outputs for records of numbers."""
        inputs = tuple(Tensor(str(name), "FP64", column.to_numpy(np.float64)) for name, column in frame.items())
        request = InferRequest(inputs, outputs=tuple(RequestedOutput(name) for name in names))
        response = asyncio.run(self.transformer.infer(request, Context()))
        return {tensor.name: _as_text(tensor.array) for tensor in response.outputs}


def _as_text(array: Array) -> Array:
    if array.dtype != object:
        return array
    return np.array([text(each) for each in array.ravel().tolist()], object).reshape(array.shape)
