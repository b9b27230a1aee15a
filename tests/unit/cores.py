"""Both services' cores in this process: a transformer that asks a predictor of the same bundle."""

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
from tabserve.inference.metrics import Metrics
from tabserve.inference.model import Context
from tabserve.inference.tensors import InferRequest, InferResponse, RequestedOutput, Tensor, text
from tabserve_predictor import model as predictor
from tabserve_predictor.settings import Settings as PredictorSettings
from tabserve_transformer.model import Transformer
from tabserve_transformer.settings import Settings as TransformerSettings


class _Wired:
    """A predictor that gets texts as the wire carries them, as bytes."""

    ready = True

    def __init__(self, model: predictor.Predictor) -> None:
        self._model = model

    async def start(self) -> None:
        """Nothing runs in the background."""

    async def stop(self) -> None:
        """Nothing runs in the background."""

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        """What the predictor answers."""
        inputs = tuple(Tensor(one.name, one.datatype, _encoded(one.array)) for one in request.inputs)
        return await self._model.infer(msgspec.structs.replace(request, inputs=inputs), context)


def _encoded(array: Array) -> Array:
    return array if array.dtype != object else np.array([text(each).encode() for each in array.tolist()], object)


class Cores:
    """Records in, decisions out, as the services would answer them."""

    def __init__(self, bundle: Bundle) -> None:
        self.predictor = predictor.load(bundle, PredictorSettings(), Metrics())
        preprocess = None if bundle.manifest.preprocessor is None else engines.load_preprocessor(bundle)
        settings = TransformerSettings(predictor_host="localhost")
        self.transformer = Transformer(bundle, _Wired(self.predictor), settings, Metrics(), preprocess)

    def predictions(self, frame: pd.DataFrame) -> list[dict[str, Any]]:
        """What V1 answers about a frame's rows as JSON records, a missing value as null."""
        body = orjson.dumps({"instances": orjson.loads(frame.to_json(orient="records", double_precision=15))})
        found: list[dict[str, Any]] = orjson.loads(asyncio.run(self.transformer.predict(body, Context())))[
            "predictions"
        ]
        return found

    def outputs(self, frame: pd.DataFrame, *names: str) -> dict[str, Array]:
        """The named outputs of V2 of records of numbers."""
        inputs = tuple(Tensor(str(name), "FP64", column.to_numpy(np.float64)) for name, column in frame.items())
        request = InferRequest(inputs, outputs=tuple(RequestedOutput(name) for name in names))
        response = asyncio.run(self.transformer.infer(request, Context()))
        return {tensor.name: tensor.array for tensor in response.outputs}
