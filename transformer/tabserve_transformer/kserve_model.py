"""The transformer as a kserve.Model, for the stock ModelServer and for hooks of your own."""

from __future__ import annotations

from tabserve.kserve_adapter import KServeModel


class TransformerModel(KServeModel):
    """Subclass it, override `preprocess` or `postprocess`, and name it with `--model_class=module:Class`.

    `predict` is the whole way of a request through the core: records to tensors, to the predictor, to decisions.
    """
