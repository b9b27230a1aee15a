"""KServe's sklearnserver, xgbserver and lgbserver in one: `stock_kserve.py FOLDER HTTP GRPC`, with KServe's own Python.

None of them is in a package registry; each `predict` here is that of its model.py, and the SDK does the rest. FOLDER
has a folder for each model.
Source: https://github.com/kserve/kserve/blob/v0.20.0/python/sklearnserver/sklearnserver/model.py, and beside it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import xgboost
from kserve import Model, ModelServer
from kserve.errors import InferenceError
from kserve.utils.utils import get_predict_input, get_predict_response


class Served(Model):  # type: ignore[misc]  # the SDK is not installed where types are checked
    """A model of any of the three libraries, by the ending of its file."""

    def __init__(self, file: Path) -> None:
        super().__init__(file.parent.name)
        self._columns = None
        if file.suffix == ".joblib":
            estimator = joblib.load(file)
            proba = os.environ.get("PREDICT_PROBA", "false").lower() == "true" and hasattr(estimator, "predict_proba")
            self._predict = estimator.predict_proba if proba else estimator.predict
        elif file.suffix == ".json":
            booster = xgboost.Booster(params={"nthread": 1}, model_file=bytearray(file.read_bytes()))
            self._predict = lambda instances: booster.predict(xgboost.DMatrix(instances, nthread=1))
        else:
            light = lightgbm.Booster(params={"nthread": 1}, model_file=file)
            self._predict, self._columns = light.predict, light.feature_name()
        self.ready = True

    def predict(self, payload: Any, headers: dict[str, str] | None = None) -> Any:
        """Answer as the model's own server does."""
        try:
            result = self._predict(get_predict_input(payload, columns=self._columns))
            return get_predict_response(payload, result, self.name)
        except Exception as error:
            raise InferenceError(str(error)) from error


if __name__ == "__main__":
    folder, http, grpc = sys.argv[1:]
    models = [Served(file) for file in sorted(Path(folder).glob("*/model.*"))]
    ModelServer(http_port=int(http), grpc_port=int(grpc), workers=1).start(models)
