"""A KServe transformer that passes tensors on: only the SDK, with its client for the predictor."""

from __future__ import annotations

import argparse

from kserve import InferRequest, InferResponse, Model, ModelServer, PredictorConfig, model_server


class PassThrough(Model):  # type: ignore[misc]  # the SDK is not installed where types are checked
    """Passes tensors on; `predict` is the SDK's own, which asks the predictor."""

    def __init__(self, name: str, predictor: PredictorConfig) -> None:
        super().__init__(name, predictor)
        self.ready = True

    def preprocess(self, payload: InferRequest, headers: dict[str, str] | None = None) -> InferRequest:
        """The tensors as they came."""
        return payload

    def postprocess(
        self,
        result: InferResponse,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> InferResponse:
        """The answer as it came."""
        return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    args, _ = parser.parse_known_args()
    predictor = PredictorConfig(args.predictor_host, args.predictor_protocol)
    ModelServer().start([PassThrough(args.model_name, predictor)])
