"""KServe's sklearnserver, which is not in any package registry; this does what its model.py does with PREDICT_PROBA.

Source: https://github.com/kserve/kserve/blob/v0.17.0/python/sklearnserver/sklearnserver/model.py
"""

from __future__ import annotations

import argparse

import joblib
from kserve import InferRequest, InferResponse, Model, ModelServer, model_server
from kserve.utils.utils import get_predict_input, get_predict_response


class SKLearnModel(Model):  # type: ignore[misc]  # the SDK is not installed where types are checked
    """A pipeline behind the SDK's own encoding and decoding, which makes a DataFrame if the request says "pd"."""

    def __init__(self, name: str, file: str) -> None:
        super().__init__(name)
        self._model = joblib.load(file)
        self.ready = True

    def predict(self, payload: InferRequest, headers: dict[str, str] | None = None) -> InferResponse:
        """Both classes' probabilities for every row."""
        return get_predict_response(payload, self._model.predict_proba(get_predict_input(payload)), self.name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    parser.add_argument("--model_file", required=True)
    args, _ = parser.parse_known_args()
    ModelServer().start([SKLearnModel(args.model_name, args.model_file)])
