"""The predictor as a kserve.Model, for the stock ModelServer and for your own hooks."""

from __future__ import annotations

from tabserve.kserve_adapter import KServeModel


class PredictorModel(KServeModel):
    """To add hooks, subclass this, override `preprocess` or `postprocess`, and set `--model_class=module:Class`."""
