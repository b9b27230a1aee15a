"""Make requests for a model in each encoding, and compare their answers with the library's own predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
import pandas as pd

from benchmarks import cache, models, pool
from benchmarks.models import NAME, Trained
from tabserve.inference.grpc import open_inference_pb2 as pb

Encoding = Literal["json", "json-predict_proba", "binary", "grpc", "columns", "records"]
Answers = Literal["probabilities", "positive", "class", "decisions", "reasons", "some-reasons", "same"]
Array = npt.NDArray[Any]

MOST, FEWEST = 4096, 256
TOLERANCE = 1e-6
BINARY_HEADER = "inference-header-content-length"

_V2 = f"/v2/models/{NAME}/infer"
_V1 = f"/v1/models/{NAME}:predict"


@dataclass(frozen=True)
class Payloads:
    """A pool of requests, all of the same size and with different rows, as a file for the generator."""

    model: Trained
    rows: int
    encoding: Encoding
    file: Path

    @property
    def path(self) -> str:
        """The path that the requests are posted to."""
        return _V1 if self.encoding == "records" else _V2

    @property
    def protocol(self) -> str:
        """The generator's name for the protocol."""
        return "grpc" if self.encoding == "grpc" else "http"

    @property
    def headers(self) -> dict[str, str]:
        """The request's headers."""
        if self.encoding != "binary":
            return {"Content-Type": "application/json"}
        size = len(_binary_head("000000", self.rows, self.model.rows.shape[1]))
        return {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(size)}

    def expected(self) -> Array:
        """The library's probabilities, [requests, rows, classes]."""
        return self.model.probabilities[: count(self.rows) * self.rows].reshape(-1, self.rows, 2)


def count(rows: int) -> int:
    """How many requests with this number of rows are in a pool: thousands of small ones, fewer large ones."""
    return max(FEWEST, min(MOST, 65_536 // rows))


def payloads(model: Trained, rows: int, encoding: Encoding) -> Payloads:
    """The pool for a model, size and encoding, written on first use."""
    name = f"{model.folder.name}-{rows}-{encoding}-{cache.key([Path(__file__)])}"
    file = cache.folder("payloads") / name
    if not file.exists():
        draft = file.with_suffix(".draft")
        pool.write(draft, _encoded(model.rows, rows, encoding))
        draft.rename(file)
    return Payloads(model, rows, encoding, file)


def _encoded(frame: pd.DataFrame, rows: int, encoding: Encoding) -> Iterator[bytes]:
    encode = _ENCODERS[encoding]
    for number in range(count(rows)):
        yield encode(f"{number:06}", frame.iloc[number * rows : (number + 1) * rows])


def _json(identity: str, rows: pd.DataFrame, **others: object) -> bytes:
    matrix = rows.to_numpy(np.float32)
    tensor = {"name": "input-0", "shape": matrix.shape, "datatype": "FP32", "data": matrix.ravel()}
    return orjson.dumps({"id": identity, "inputs": [tensor], **others}, option=orjson.OPT_SERIALIZE_NUMPY)


def _json_predict_proba(identity: str, rows: pd.DataFrame) -> bytes:
    return _json(identity, rows, outputs=[{"name": "predict_proba"}])


def _binary_head(identity: str, rows: int, width: int) -> bytes:
    parameters = {"binary_data_size": 4 * rows * width}
    tensor = {"name": "input-0", "shape": [rows, width], "datatype": "FP32", "parameters": parameters}
    return orjson.dumps({"id": identity, "inputs": [tensor], "parameters": {"binary_data_output": True}})


def _binary(identity: str, rows: pd.DataFrame) -> bytes:
    return _binary_head(identity, *rows.shape) + rows.to_numpy(np.float32).tobytes()


def _grpc(identity: str, rows: pd.DataFrame) -> bytes:
    tensor = pb.ModelInferRequest.InferInputTensor(name="input-0", datatype="FP32", shape=rows.shape)
    raw = rows.to_numpy(np.float32).tobytes()
    request = pb.ModelInferRequest(model_name=NAME, id=identity, inputs=[tensor], raw_input_contents=[raw])
    encoded: bytes = request.SerializeToString()
    return encoded


def _columns(identity: str, rows: pd.DataFrame) -> bytes:
    tensors = [
        {
            "name": name,
            "shape": [len(rows)],
            "datatype": "BYTES" if column.dtype == object else "FP64",
            "data": column.tolist(),
        }
        for name, column in rows.items()
    ]
    # KServe's SDK hands a model the tensors as a DataFrame when it reads "pd".
    return orjson.dumps({"id": identity, "parameters": {"content_type": "pd"}, "inputs": tensors})


def _records(_: str, rows: pd.DataFrame) -> bytes:
    numbers = rows.select_dtypes("float32").astype(np.float64).round(4)
    return orjson.dumps({"instances": rows.assign(**numbers).to_dict("records")})


_ENCODERS: dict[Encoding, Callable[[str, pd.DataFrame], bytes]] = {
    "json": _json,
    "json-predict_proba": _json_predict_proba,
    "binary": _binary,
    "grpc": _grpc,
    "columns": _columns,
    "records": _records,
}


def verify(asked: Payloads, answers: list[bytes], kind: Answers) -> float:
    """The largest difference of a probability between the answers and the library's predictions.

    kind: what the server answers with. Raises ValueError for the first answer that is off by more than TOLERANCE, or
    that has another class or decision.
    """
    if kind == "same":
        return 0.0
    worst = 0.0
    for number, (answer, expected) in enumerate(zip(answers, asked.expected(), strict=True)):
        difference = _difference(_decoded(asked, answer, kind), expected, kind)
        if difference > TOLERANCE:
            raise ValueError(f"answer {number} is off by {difference:g} from the library's: {answer[:300]!r}")
        worst = max(worst, difference)
    return worst


def _difference(got: Array, expected: Array, kind: Answers) -> float:
    """The largest difference of any value; infinite if a value is missing, superfluous or not a number."""
    wanted = expected if kind == "probabilities" else expected[:, 1]
    if kind == "class":
        wanted = expected.argmax(axis=1)
    if got.size != wanted.size:
        return float("inf")
    return float(np.nan_to_num(np.abs(got.reshape(wanted.shape) - wanted), nan=np.inf, posinf=np.inf).max())


def band(score: float, bands: Sequence[tuple[float, str]]) -> str:
    """The decision that bands give a score."""
    return next(label for lowest, label in bands if score >= lowest)


def _decoded(asked: Payloads, answer: bytes, kind: Answers) -> Array:
    if kind in ("decisions", "reasons", "some-reasons"):
        return _scores(answer, models.bands(asked.model.name), kind)
    if asked.encoding == "grpc":
        return _decoded_grpc(answer)
    if asked.encoding == "binary":
        return _decoded_binary(answer)
    return np.asarray(orjson.loads(answer)["outputs"][0]["data"], np.float64)


def _scores(answer: bytes, bands: Sequence[tuple[float, str]], kind: Answers) -> Array:
    """The scores of V1 decisions; infinite for one with the wrong band, or with reasons that it should not have."""
    predictions = orjson.loads(answer)["predictions"]
    return np.array([p["score"] if _is_decided(p, bands, kind) else np.inf for p in predictions])


def _is_decided(prediction: dict[str, Any], bands: Sequence[tuple[float, str]], kind: Answers) -> bool:
    decision: str = prediction["decision"]
    if decision != band(prediction["score"], bands):
        return False
    if kind == "some-reasons":
        return bool(prediction["reasons"]) == (decision != bands[-1][1])
    return ("reasons" in prediction) == (kind == "reasons")


def _decoded_binary(answer: bytes) -> Array:
    # The JSON's length is in an HTTP header, which is not kept, so the JSON ends at its last brace.
    head, end = _json_prefix(answer)
    output = head["outputs"][0]
    datatype = {"FP32": np.float32, "FP64": np.float64}[output["datatype"]]
    return np.frombuffer(answer, datatype, offset=end).astype(np.float64)


def _json_prefix(answer: bytes) -> tuple[dict[str, Any], int]:
    end = answer.rfind(b"}]}") + 3
    while end > 2:
        try:
            return orjson.loads(answer[:end]), end
        except orjson.JSONDecodeError:
            end = answer.rfind(b"}]}", 0, end - 1) + 3
    raise ValueError(f"expected JSON before binary tensors, got {answer[:300]!r}")


def _decoded_grpc(answer: bytes) -> Array:
    response = pb.ModelInferResponse.FromString(answer)
    output = response.outputs[0]
    if response.raw_output_contents:
        datatype = {"FP32": np.float32, "FP64": np.float64}[output.datatype]
        return np.frombuffer(response.raw_output_contents[0], datatype).astype(np.float64)
    return np.asarray(output.contents.fp32_contents or output.contents.fp64_contents, np.float64)
