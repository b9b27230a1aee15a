"""Both services as processes, with a log: records by every protocol, and dropped values nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from xgboost import XGBClassifier

import tabserve.train
from tabserve.bundle import Bundle
from tabserve.decision_log.replay import replay
from tabserve.decision_log.replayer import Replayer
from tabserve.inference.grpc import open_inference_pb2 as pb
from tests.contract.target import Target
from tests.serving import Service, running

SCHEMA = """\
task: binary
record:
  - {name: amount, type: number, min: 0}
  - {name: country, type: category, values: [DE, FR]}
  - {name: income, type: number, required: false}
  - {name: asked, type: timestamp, required: false, default: now, use: audit}
  - {name: phone, type: text, max_length: 40, use: audit, logged: drop}
  - {name: account, type: text, required: false, use: audit, logged: hash}
features: [amount, country, income]
outputs:
  classes: [accept, fraud]
  decision: {score: fraud, bands: [{from: 0.5, label: review}, {from: 0, label: accept}]}
  reasons: {top: 2, for: [review], codes: {amount: A01}}
"""
CANARY = "canary-0172-555"
HONEST = {"amount": 1.5, "country": "DE", "phone": CANARY, "account": CANARY}
FRAUD = {"amount": 500, "country": "FR", "income": 12.25, "phone": CANARY}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("recording")
    path = folder / "schema.yaml"
    path.write_text(SCHEMA)
    random = np.random.default_rng(3)
    given = pd.DataFrame(
        {
            "amount": random.uniform(0, 600, 200),
            "country": random.choice(["DE", "FR"], 200),
            "income": np.where(random.random(200) < 0.2, np.nan, random.uniform(0, 9, 200)),
            "asked": 0.0,
            "phone": "",
            "account": "",
        }
    )
    model = XGBClassifier(n_estimators=5, max_depth=2, enable_categorical=True)
    model.fit(tabserve.train.features(path, given), (given.amount > 300).astype(int))
    options: dict[str, Any] = {"schema": path, "sample": given, "engine": "xgboost"}
    return tabserve.train.save(model, folder / "bundle", name="fraud", version="1", **options)


class Served(NamedTuple):
    """The services, their log of decisions, and how to ask."""

    transformer: Service
    predictor: Service
    log: Path
    target: Target

    def predict(self, *records: dict[str, Any], **headers: str) -> Any:
        body = json.dumps({"instances": records}).encode()
        sent = {
            "content-type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return self.target.http("POST", "/v1/models/fraud:predict", body, sent).json()

    def records(self) -> list[dict[str, Any]]:
        """What the log holds, once the transformer has ended."""
        assert self.transformer.terminate() == 0
        rows: list[dict[str, Any]] = []
        for path in sorted(self.log.rglob("*.parquet")):
            rows += pq.ParquetFile(path).read().to_pylist()
        return sorted(rows, key=lambda row: str(row["id"]))


@pytest.fixture
def served(bundle: Bundle, tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "key").write_text("0123456789abcdef\n")
    log = tmp_path / "decisions"
    of_both = [f"--model_dir={bundle.path}", "--release=a-1"]
    with running("tabserve_predictor", *of_both, log=tmp_path / "predictor.log") as predictor:
        options = [
            *of_both,
            f"--predictor_host=127.0.0.1:{predictor.http_port}",
            f"--decision_log={log}",
            f"--decision_log_hash_key_file={tmp_path / 'key'}",
        ]
        with running("tabserve_transformer", *options, log=tmp_path / "transformer.log") as transformer:
            yield Served(transformer, predictor, log, Target(transformer.url, transformer.grpc, None, None))


def tensors() -> list[dict[str, Any]]:
    columns = {"amount": "FP64", "country": "BYTES", "phone": "BYTES"}
    return [
        {"name": name, "datatype": kind, "shape": [2], "data": [HONEST[name], FRAUD[name]]}
        for name, kind in columns.items()
    ]


def by_grpc(address: str) -> list[bytes]:
    """The decisions on the two records."""
    request = pb.ModelInferRequest(model_name="fraud")
    for one in tensors():
        tensor = request.inputs.add(name=one["name"], datatype=one["datatype"], shape=one["shape"])
        if one["datatype"] == "FP64":
            tensor.contents.fp64_contents.extend(one["data"])
        else:
            tensor.contents.bytes_contents.extend(text.encode() for text in one["data"])
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        response = infer(request, metadata=[("x-request-id", "d")], timeout=60)
    return list(next(each for each in response.outputs if each.name == "decision").contents.bytes_contents)


def test_records_of_every_protocol_are_in_the_log_and_dropped_values_are_nowhere(
    served: Served, bundle: Bundle
) -> None:
    v1 = served.predict(HONEST, FRAUD, x_request_id="a")["predictions"]
    sifted = served.predict({"phone": CANARY * 5}, FRAUD, x_request_id="b", x_on_error="record")
    body = json.dumps({"inputs": tensors(), "outputs": [{"name": "score"}]}).encode()
    v2 = served.target.http("POST", "/v2/models/fraud/infer", body, {"x-request-id": "c"}).json()
    body = json.dumps({"inputs": tensors(), "outputs": [{"name": "margin"}]}).encode()
    margins = served.target.http("POST", "/v2/models/fraud/infer", body, {"x-request-id": "e"}).json()["outputs"]
    decisions = by_grpc(served.transformer.grpc)
    metrics = served.transformer.metrics() + served.predictor.metrics()
    rows = {row["id"]: row for row in served.records()}

    assert list(rows) == ["a/0", "a/1", "b/1", "c/0", "c/1", "d/0", "d/1", "e/0", "e/1"]
    assert [{name: rows[f"a/{at}"][name] for name in v1[at]} for at in (0, 1)] == v1
    assert {name: rows["b/1"][name] for name in v1[1]} == sifted["predictions"][1] == v1[1]
    assert [rows["c/0"]["score"], rows["c/1"]["score"]] == v2["outputs"][0]["data"]
    assert [rows["d/0"]["decision"].encode(), rows["d/1"]["decision"].encode()] == decisions
    recorded = np.array([rows[name]["outputs"]["margin"] for name in ("e/0", "e/1")], np.float32)
    assert recorded.ravel().tolist() == np.array(margins[0]["data"], np.float32).tolist()
    assert [rows[name]["score"] for name in ("e/0", "e/1")] == v2["outputs"][0]["data"]
    assert {row["decision"]: bool(row["codes"]) for row in rows.values()} == {"accept": False, "review": True}
    assert rows["a/1"]["codes"][0] == "A01"
    assert {(row["engine"] != "", row["versions"][:9], row["release"], row["weight"]) for row in rows.values()} == {
        (True, "tabserve ", "a-1", 1.0)
    }
    assert [rows[name]["rows"] for name in ("a/0", "b/1", "c/0")] == [2, 1, 2]
    assert {name for row in rows.values() for name in row["record"]} == (set(HONEST) | {"income", "asked"}) - {"phone"}
    assert len(rows["a/0"]["record"]["account"]) == 64

    replayed = replay(str(served.log), [Replayer(bundle.path)])
    assert (replayed.records, replayed.equal) == (9, 9)

    assert len(sifted["errors"]) == 3
    told = [served.transformer.text(), served.predictor.text(), metrics, json.dumps([v1, sifted, v2])]
    assert [CANARY in text for text in told] == [False] * 4
    assert len(list(served.log.rglob("*"))) > 0
    assert [path for path in served.log.rglob("*.parquet") if CANARY.encode() in uncompressed(path)] == []


def uncompressed(path: Path) -> bytes:
    """A file's columns, and its bytes as they are."""
    out = pa.BufferOutputStream()
    pq.write_table(pq.ParquetFile(path).read(), out, compression="none", use_dictionary=False)
    return path.read_bytes() + bytes(out.getvalue().to_pybytes())
