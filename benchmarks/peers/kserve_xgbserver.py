"""KServe's xgbserver, which is not in any package registry; as in its model.py, DMatrix and `predict` on one thread.

Source: https://github.com/kserve/kserve/blob/v0.17.0/python/xgbserver/xgbserver/model.py
"""

from __future__ import annotations

import argparse

import xgboost
from kserve import InferRequest, InferResponse, Model, ModelServer, model_server
from kserve.utils.utils import get_predict_input, get_predict_response


class XGBoostModel(Model):  # type: ignore[misc]  # the SDK is not installed where types are checked
    """A booster behind the SDK's own decoding and encoding; it answers the positive class's probability."""

    def __init__(self, name: str, file: str) -> None:
        super().__init__(name)
        self._booster = xgboost.Booster({"nthread": 1}, model_file=file)
        self.ready = True

    def predict(self, payload: InferRequest, headers: dict[str, str] | None = None) -> InferResponse:
        """The output of the booster's objective for every row."""
        matrix = xgboost.DMatrix(get_predict_input(payload), nthread=1)
        return get_predict_response(payload, self._booster.predict(matrix), self.name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    parser.add_argument("--model_file", required=True)
    args, _ = parser.parse_known_args()
    ModelServer().start([XGBoostModel(args.model_name, args.model_file)])
