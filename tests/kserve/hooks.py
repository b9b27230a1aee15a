"""A KServe user's code: subclasses of our adapters with hooks that do not await anything."""

from __future__ import annotations

from typing import Any

from tabserve_predictor.kserve_model import PredictorModel
from tabserve_transformer.kserve_model import TransformerModel


class Halved(PredictorModel):
    """Halves every input before prediction."""

    def preprocess(self, payload: Any, headers: Any = None) -> Any:
        for tensor in payload.inputs:
            tensor.set_data_from_numpy(tensor.as_numpy() / 2, binary_data=True)
        return payload


class Shouting(TransformerModel):
    """Writes decisions in capitals."""

    def postprocess(self, result: Any, headers: Any = None) -> Any:
        for prediction in result["predictions"]:
            prediction["decision"] = prediction["decision"].upper()
        return result
