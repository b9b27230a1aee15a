"""The predictor as a kserve.Model, for the stock ModelServer and for hooks of your own."""

from __future__ import annotations

from tabserve.kserve_adapter import KServeModel


class PredictorModel(KServeModel):
    """Subclass it, override `preprocess` or `postprocess`, and name it with `--model_class=module:Class`."""
