"""KServe's stock ModelServer with a simple custom model: `inplace_predict` between the SDK's decoding and encoding."""

from __future__ import annotations

import argparse

import numpy as np
import xgboost
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, model_server


class Custom(Model):  # type: ignore[misc]  # the SDK is not installed where types are checked
    """A booster on one thread, so that it does not compete with the server."""

    def __init__(self, name: str, file: str) -> None:
        super().__init__(name)
        self._booster = xgboost.Booster({"nthread": 1}, model_file=file)
        self.ready = True

    def predict(
        self,
        payload: InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> InferResponse:
        """Both classes' probabilities for every row."""
        positive = self._booster.inplace_predict(payload.inputs[0].as_numpy())
        probabilities = np.column_stack([1 - positive, positive])
        output = InferOutput("predict_proba", list(probabilities.shape), "FP32")
        output.set_data_from_numpy(probabilities, binary_data=payload.use_binary_outputs or payload.from_grpc)
        return InferResponse(
            response_id=payload.id,
            model_name=self.name,
            infer_outputs=[output],
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    parser.add_argument("--model_file", required=True)
    args, _ = parser.parse_known_args()
    ModelServer().start([Custom(args.model_name, args.model_file)])
