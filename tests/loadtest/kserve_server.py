"""KServe's stock ModelServer with our own model, started like a tabserve service: a V2 server that is not ours."""

from __future__ import annotations

import argparse
from typing import Any

import kserve
from kserve import InferOutput, InferRequest, InferResponse


class Sum(kserve.Model):  # type: ignore[misc]
    """Answers the sum of every row."""

    def load(self) -> bool:
        """Do nothing, because there is nothing to load."""
        self.ready = True
        return True

    async def get_input_types(self) -> list[dict[str, Any]]:
        """The metadata of one matrix with two columns."""
        return [{"name": "x", "datatype": "FP64", "shape": [-1, 2]}]

    async def get_output_types(self) -> list[dict[str, Any]]:
        """The metadata of one number per row."""
        return [{"name": "sum", "datatype": "FP64", "shape": [-1]}]

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> InferResponse:
        """Answer with the sums, as JSON or binary like the request."""
        assert isinstance(payload, InferRequest)
        sums = payload.inputs[0].as_numpy().sum(axis=1)
        output = InferOutput("sum", list(sums.shape), "FP64")
        output.set_data_from_numpy(sums, binary_data=payload.use_binary_outputs)
        return InferResponse(payload.id or "", self.name, [output])


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--http_port", type=int)
    parser.add_argument("--grpc_port", type=int)
    parser.add_argument("--admin_port", type=int, help="not used: it has none")
    options = parser.parse_args()
    model = Sum("sum")
    model.load()
    kserve.ModelServer(http_port=options.http_port, grpc_port=options.grpc_port, workers=1).start([model])


if __name__ == "__main__":
    main()
