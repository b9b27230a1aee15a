"""Bodies of 8 MB that take long to refuse or to answer: health is not late, and other clients are answered.

The model is wide, so rows times features let the most values in. Four clients send one kind of body all the time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import pytest
import xgboost
import yaml

from tabserve.inference.grpc import open_inference_pb2 as pb
from tabserve.train import save
from tests.faults import wire
from tests.faults.conftest import Subject
from tests.serving import Service, running

pytestmark = pytest.mark.long
WIDTH, ROWS = 400, 10_000
ATTACKERS, SECONDS = 4, 10.0
HEALTH_SECONDS, OTHERS_SECONDS = 0.1, 1.0
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a small model with many features."""
    folder, names = tmp_path_factory.mktemp("wide"), [f"f{at}" for at in range(WIDTH)]
    record = [{"name": name, "type": "number"} for name in names]
    outputs = {"classes": ["a", "b"], "decision": {"score": "b", "bands": [{"from": 0, "label": "x"}]}}
    content = {"task": "binary", "record": record, "features": names, "outputs": outputs}
    (folder / "schema.yaml").write_text(yaml.safe_dump(content))
    values = np.random.default_rng(1).random((200, WIDTH))
    matrix = xgboost.DMatrix(values, values[:, 0] > values[:, 1], feature_names=names)
    model = xgboost.train({"objective": "binary:logistic", "max_depth": 3, "nthread": 1}, matrix, num_boost_round=5)
    sample = dict(zip(names, values.T.tolist(), strict=True))
    save(model, folder / "b", name="wide", version="1", schema=folder / "schema.yaml", sample=sample, engine="xgboost")
    return folder / "b"


@pytest.fixture(scope="module", params=["predictor", "transformer"])
def service(request: pytest.FixtureRequest, wide: Path, logs: Path) -> Generator[Service]:
    """Both services of the wide bundle, one after the other."""
    model = f"--model_dir={wide}"
    with running("tabserve_predictor", model, log=logs / "wide_predictor.log") as predictor:
        if request.param == "predictor":
            yield predictor
            return
        host = f"--predictor_host=127.0.0.1:{predictor.http_port}"
        with running("tabserve_transformer", model, host, log=logs / "wide_transformer.log") as transformer:
            yield transformer


def tensor(data: bytes, datatype: str = "FP64", shape: tuple[int, ...] = (ROWS, WIDTH)) -> bytes:
    """A V2 body with one input."""
    head = b'{"inputs":[{"name":"input-0","datatype":"%b","shape":%b,"data":[%b]}]}'
    return head % (datatype.encode(), json.dumps(shape).encode(), data)


def many(element: bytes, size: int = 7_800_000) -> bytes:
    """As much of an element as makes `size` bytes."""
    return b",".join([element] * (size // (len(element) + 1)))


ROW = b"[" + many(b"1", 2 * WIDTH) + b"]"
EMPTY_INPUT = b'{"name":"a","datatype":"FP64","shape":[0],"data":[]}'
BODIES = {
    "a column of arrays": ("infer", tensor(many(b"[1]"))),
    "arrays in arrays": ("infer", tensor(many(b"[[1]]"), shape=(100, 100, 100))),
    "empty arrays": ("infer", tensor(many(b"[]"))),
    "numbers": ("infer", tensor(many(b"1"))),
    "rows": ("infer", tensor(many(ROW))),
    "texts": ("infer", tensor(many(b'""'), "BYTES")),
    "inputs": ("infer", b'{"inputs":[' + many(EMPTY_INPUT) + b"]}"),
    "V1 rows": ("predict", b'{"instances":[' + many(ROW) + b"]}"),
    "V1 nulls": ("predict", b'{"instances":[' + many(b"[" + many(b"null", 5 * WIDTH) + b"]") + b"]}"),
    "V1 empty rows": ("predict", b'{"instances":[' + many(b"[]") + b"]}"),
    "V1 one row": ("predict", b'{"instances":[[' + many(b"1") + b"]]}"),
    "V1 records": (
        "predict",
        b'{"instances":[' + many(json.dumps({f"f{at}": 0.5 for at in range(WIDTH)}).encode()) + b"]}",
    ),
}


def request_of(kind: str) -> bytes:
    """A whole request over REST."""
    path, body = BODIES[kind]
    target = "/v2/models/wide/infer" if path == "infer" else "/v1/models/wide:predict"
    return wire.post(target, f"Content-Length: {len(body)}", body=body)


def message_of(kind: str) -> bytes:
    """A message over gRPC."""
    count = ROWS * WIDTH
    request = pb.ModelInferRequest(model_name="wide")
    datatype, contents = {
        "integers": ("INT32", pb.InferTensorContents(int_contents=[1] * count)),
        "doubles": ("FP64", pb.InferTensorContents(fp64_contents=[1.0] * (count // 4))),
        "texts": ("BYTES", pb.InferTensorContents(bytes_contents=[b""] * ROWS)),
    }[kind]
    shape = [count // WIDTH // 4, WIDTH] if kind == "doubles" else [ROWS, 1] if kind == "texts" else [ROWS, WIDTH]
    request.inputs.add(name="input-0", datatype=datatype, shape=shape, contents=contents)
    return request.SerializeToString()


def repeated(ask: Callable[[], object], end: float) -> list[float]:
    """How long each call took, one after the other until then."""
    found: list[float] = []
    while (started := time.monotonic()) < end:
        ask()
        found.append(time.monotonic() - started)
    return found


def answered(port: int, request: bytes) -> None:
    """Ask once on a connection of its own; the answer must be right."""
    assert wire.ask(port, request) == [200]


def assert_others_are_answered(service: Service, attack: Callable[[], object]) -> None:
    """Assert that while several clients attack, health is not late, and another client is answered."""
    subject = Subject(service)
    body = json.dumps(subject.payload.json()).encode()
    small = wire.post(f"{subject.target.path}/infer", f"Content-Length: {len(body)}", body=body)
    end = time.monotonic() + SECONDS
    with ThreadPoolExecutor(ATTACKERS + 2) as pool:
        attacks = [pool.submit(repeated, attack, end) for _ in range(ATTACKERS)]
        asked = ((service.admin_port, LIVE), (service.http_port, small))
        probes = [pool.submit(repeated, partial(answered, *each), end) for each in asked]
    assert all(each.result() for each in attacks)
    health, others = (each.result() for each in probes)
    print(f"{quantile(health, 0.99) * 1000:.0f} ms of health, {max(others) * 1000:.0f} ms of others at most")
    assert quantile(health, 0.99) < HEALTH_SECONDS
    assert max(others) < OTHERS_SECONDS


def quantile(values: list[float], q: float) -> float:
    """The smallest value that a share q of all does not exceed."""
    return sorted(values)[int(q * len(values))]


@pytest.mark.parametrize("kind", BODIES)
def test_no_body_makes_health_late(service: Service, kind: str) -> None:
    assert_others_are_answered(service, partial(wire.ask, service.http_port, request_of(kind)))


@pytest.mark.parametrize("kind", ["integers", "doubles", "texts"])
def test_no_message_makes_health_late(service: Service, kind: str) -> None:
    data = message_of(kind)
    with grpc.insecure_channel(service.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        assert_others_are_answered(service, lambda: call.future(data, timeout=60).exception())
