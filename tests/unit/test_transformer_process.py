"""Predictor and transformer as real processes: decisions, releases, a dying predictor, what is loaded."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Generator, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import OrdinalEncoder, StandardScaler

from tabserve import train
from tabserve.bundle import Bundle
from tabserve.inference.model import Context
from tabserve_transformer.predictor_client.client import PredictorClient
from tests.serving import Service, free_port, start
from tests.unit.fake_predictor import OWN, REQUEST, client_of, two_addresses

SCHEMA = """\
task: binary
record:
  - {name: amount, type: number, min: 0}
  - {name: country, type: category, values: [DE, FR, IT]}
features: [amount, country]
outputs:
  classes: [accept, fraud]
  decision: {score: fraud, bands: [{from: 0.5, label: review}, {from: 0, label: accept}]}
  reasons: {top: 1}
"""
ROWS = 400
FRAUD = {"amount": 500, "country": "IT"}
HONEST = {"amount": 1, "country": "DE"}
PREDICT, INFER = "/v1/models/fraud:predict", "/v2/models/fraud/infer"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of a small model that flags high amounts, with a preprocessor."""
    return save(tmp_path_factory.mktemp("saved"), SCHEMA)


def save(folder: Path, schema: str) -> Bundle:
    import pandas as pd

    (folder / "schema.yaml").write_text(schema)
    random = np.random.default_rng(7)
    records = pd.DataFrame({"amount": random.uniform(0, 600, ROWS), "country": random.choice(["DE", "FR", "IT"], ROWS)})
    categories = OrdinalEncoder(categories=[["DE", "FR", "IT"]])
    preprocessor = ColumnTransformer([("amount", StandardScaler(), ["amount"]), ("country", categories, ["country"])])
    matrix = preprocessor.fit_transform(records)
    model = xgboost.XGBClassifier(n_estimators=10, max_depth=2, n_jobs=1).fit(matrix, records["amount"] > 300)
    return train.save(
        model,
        folder / "bundle",
        name="fraud",
        version="7",
        schema=folder / "schema.yaml",
        sample=records,
        preprocessor=preprocessor,
    )


class Pair:
    """A predictor and a transformer with one bundle; the predictor can be killed and started again."""

    def __init__(self, saved: Bundle, logs: Path) -> None:
        self._options = [f"--model_dir={saved.path}"]
        self._log = logs / "predictor.log"
        self._port = free_port()
        self.predictor = self.start_predictor()
        self.transformer = start(
            "tabserve_transformer",
            *self._options,
            f"--predictor_host=127.0.0.1:{self._port}",
            log=logs / "transformer.log",
        )
        self.transformer.wait_ready()

    def start_predictor(self, *options: str) -> Service:
        self.predictor = start("tabserve_predictor", *self._options, *options, log=self._log, http_port=self._port)
        self.predictor.wait_ready()
        return self.predictor

    def end(self) -> None:
        self.predictor.kill()
        self.transformer.kill()


@pytest.fixture
def pair(saved: Bundle, tmp_path: Path) -> Iterator[Pair]:
    services = Pair(saved, tmp_path)
    yield services
    services.end()


@pytest.fixture(scope="module")
def steady(saved: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """A transformer whose predictor is left alone."""
    services = Pair(saved, tmp_path_factory.mktemp("logs"))
    yield services.transformer
    services.end()


def post(service: Service, path: str, body: Any) -> tuple[int, dict[str, str], Any]:
    """Status, headers in lower case and JSON body of a POST."""
    connection = HTTPConnection("127.0.0.1", service.http_port, timeout=30)
    try:
        connection.request("POST", path, json.dumps(body))
        response = connection.getresponse()
        return (
            response.status,
            {name.lower(): value for name, value in response.getheaders()},
            json.loads(response.read()),
        )
    finally:
        connection.close()


def column(name: str, datatype: str, *data: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data}


def data_of(answer: Any) -> dict[str, Any]:
    return {output["name"]: output["data"] for output in answer["outputs"]}


def test_records_are_decided_and_both_releases_named(steady: Service, saved: Bundle) -> None:
    status, headers, answer = post(steady, PREDICT, {"instances": [FRAUD, HONEST]})
    assert status == 200
    assert [(made["decision"], made["label"], made["reasons"]) for made in answer["predictions"]] == [
        ("review", "fraud", ["amount"]),
        ("accept", "accept", []),
    ]
    assert headers["tabserve-transformer-release"] == headers["tabserve-predictor-release"] == saved.digest


def test_reasons_for_some_bands_are_those_of_all(steady: Service, tmp_path: Path) -> None:
    some = Pair(save(tmp_path, SCHEMA.replace("{top: 1}", "{top: 1, for: [review]}")), tmp_path)
    records = {"instances": [HONEST, FRAUD, HONEST, FRAUD]}
    inputs = {"inputs": [column("amount", "FP32", 1, 500), column("country", "BYTES", "DE", "IT")]}
    try:
        whole, partial = (post(each, PREDICT, records)[2]["predictions"] for each in (steady, some.transformer))
        by_column = data_of(post(some.transformer, INFER, inputs)[2])
    finally:
        some.end()
    assert [each["reasons"] for each in partial] == [[], ["amount"], [], ["amount"]]
    assert partial[1::2] == whole[1::2]
    assert by_column["reasons"] == ["", "amount"]


def test_records_columns_and_plain_tensors_get_the_same_answer(steady: Service, saved: Bundle) -> None:
    _, _, by_record = post(steady, PREDICT, {"instances": [FRAUD, HONEST]})
    inputs = [column("amount", "FP32", 500, 1), column("country", "BYTES", "IT", "DE")]
    _, _, by_column = post(steady, INFER, {"inputs": inputs})
    made = data_of(by_column)
    assert made["score"] == [prediction["score"] for prediction in by_record["predictions"]]
    assert made["decision"] == ["review", "accept"]
    rows = np.asarray(saved.reference.features)[:2]
    plain = {"name": "input-0", "datatype": "FP32", "shape": [2, 2], "data": rows.ravel().tolist()}
    status, _, by_tensor = post(steady, INFER, {"inputs": [plain], "outputs": [{"name": "predict_proba"}]})
    assert status == 200
    np.testing.assert_allclose(
        data_of(by_tensor)["predict_proba"], saved.reference.outputs["predict_proba"][:2].ravel(), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (
            PREDICT,
            {"instances": [FRAUD, FRAUD | {"country": "XX"}]},
            'record 1, field `country`: expected one of DE, FR, IT, got "XX"',
        ),
        (PREDICT, {"instances": [{"country": "DE"}]}, "record 0, field `amount`: expected a number of at least 0, but"),
        (INFER, {"inputs": [column("amount", "FP64", 1)]}, "input `country`: expected one of DE, FR, IT, but it is"),
        (INFER, {"inputs": [column("input-0", "FP32", 1)]}, "input `input-0`: expected shape [-1, 2], got [1]"),
    ],
)
def test_what_does_not_fit_is_a_400_that_says_where(steady: Service, path: str, body: Any, expected: str) -> None:
    status, _, answer = post(steady, path, body)
    assert status == 400
    assert answer["error"].startswith(expected)


def test_a_killed_predictor_is_a_503_and_comes_back_by_itself(pair: Pair) -> None:
    assert post(pair.transformer, PREDICT, {"instances": [FRAUD]})[0] == 200
    pair.predictor.kill()
    status, headers, answer = post(pair.transformer, PREDICT, {"instances": [FRAUD]})
    assert (status, headers["retry-after"]) == (503, "1")
    assert answer["error"].startswith("the predictor")
    pair.start_predictor()
    pair.transformer.wait_for(
        lambda: post(pair.transformer, PREDICT, {"instances": [FRAUD]})[0] == 200, "answering again"
    )


def test_a_predictor_of_another_release_is_not_used(pair: Pair) -> None:
    pair.predictor.kill()
    pair.start_predictor("--release=another")
    pair.transformer.wait_for(
        lambda: "another release" in post(pair.transformer, PREDICT, {"instances": [FRAUD]})[2].get("error", ""),
        "refusing the other release",
    )
    status, headers, _ = post(pair.transformer, PREDICT, {"instances": [FRAUD]})
    assert (status, headers["retry-after"]) == (503, "1")
    pair.transformer.wait_for(lambda: pair.transformer.status("/v2/health/ready") == 503, "not ready")
    assert pair.transformer.status("/v2/health/live") == 200


async def test_one_of_two_predictors_ends_under_load_and_no_request_fails(saved: Bundle, tmp_path: Path) -> None:
    port = free_port()
    options = (f"--model_dir={saved.path}", f"--release={OWN}", "--model_name=fraud", f"--http_port={port}")
    first = start("tabserve_predictor", *options, log=tmp_path / "first.log")
    second = start("tabserve_predictor", *options, "--host=127.0.0.2", log=tmp_path / "second.log")
    try:
        async with client_of(port) as client:
            await two_addresses(client, port)
            while not all(address.ready for address in client.addresses):
                assert not first.ended(0.1), first.text()
                assert not second.ended(0.1), second.text()
                await client.addresses.look()
            await client.start()
            load = asyncio.create_task(answered_until(client, lambda: first.process.poll() is not None))
            first.process.terminate()
            assert await load > 0
        assert first.process.returncode == 0
    finally:
        first.kill()
        second.kill()


async def answered_until(client: PredictorClient, over: Callable[[], bool]) -> int:
    """How many requests were answered, eight at a time, until `over`; all must be."""
    answered = 0
    while not over():
        responses = await asyncio.gather(*(client.infer(REQUEST, Context()) for _ in range(8)))
        answered += len(responses)
    return answered


def test_without_a_predictor_it_is_live_and_not_ready(saved: Bundle, tmp_path: Path) -> None:
    service = start(
        "tabserve_transformer",
        f"--model_dir={saved.path}",
        f"--predictor_host=127.0.0.1:{free_port()}",
        log=tmp_path / "transformer.log",
    )
    try:
        service.wait_live()
        assert service.status("/v2/health/ready") == 503
        status, headers, _ = post(service, PREDICT, {"instances": [FRAUD]})
        assert (status, headers["retry-after"]) == (503, "1")
        assert service.terminate() == 0
    finally:
        service.kill()


def test_with_an_onnx_preprocessor_it_loads_neither_scikit_learn_nor_xgboost(steady: Service, saved: Bundle) -> None:
    assert saved.manifest.preprocessor is not None
    assert saved.manifest.preprocessor.format == "onnx"
    loaded = set(re.findall(r"/site-packages/(\w+)/", Path(f"/proc/{steady.process.pid}/maps").read_text()))
    assert {"numpy", "onnxruntime", "uvloop"} <= loaded
    assert loaded.isdisjoint({"sklearn", "scipy", "xgboost", "pandas", "kserve", "pydantic_core"})


def test_a_wrong_predictor_host_ends_it(saved: Bundle, tmp_path: Path) -> None:
    service = start("tabserve_transformer", f"--model_dir={saved.path}", "--predictor_host=a:b", log=tmp_path / "log")
    assert service.ended(within=60)
    assert service.process.returncode == 1
    assert "predictor_host: expected HOST or HOST:PORT, got 'a:b'" in service.text()


def outages(pair: Pair) -> list[str]:
    """What the transformer has logged about its predictor: the words between its address and a colon."""
    return re.findall(r"the predictor at [0-9.:]+ ([a-z ]+)", pair.transformer.text())


def test_an_outage_of_the_predictor_is_told_once_and_its_end_too(pair: Pair) -> None:
    pair.predictor.kill()
    pair.transformer.wait_for(lambda: "does not answer" in pair.transformer.text(), "missing its predictor")
    assert {post(pair.transformer, PREDICT, {"instances": [FRAUD]})[0] for _ in range(20)} == {503}
    pair.start_predictor()
    pair.transformer.wait_for(lambda: outages(pair)[-1] == "answers again", "told of its predictor's return")

    assert outages(pair)[-2:] == ["does not answer", "answers again"]
    assert outages(pair).count("answers again") <= 2, "one may be of the start"
