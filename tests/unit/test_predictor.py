"""The predictor as a plain class: inputs it takes and refuses, outputs by name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.linear_model import LogisticRegression

import tabserve.bundle
import tabserve.train
from tabserve.inference.errors import InvalidRequest, RequestTooLarge
from tabserve.inference.metrics import Metrics
from tabserve.inference.model import Context
from tabserve.inference.tensors import InferRequest, InferResponse, RequestedOutput, Tensor
from tabserve_predictor.model import Predictor, load
from tabserve_predictor.settings import Settings
from tests.unit.bundles import resealed, saved

SCHEMA = """
task: binary
record:
  - {name: amount, type: number}
  - {name: country, type: category, values: [DE, FR, IT]}
  - {name: age, type: number, required: false}
features: [amount, country, age]
outputs: {classes: [accept, fraud]}
"""
ROWS = 300


@pytest.fixture(scope="module")
def records() -> pd.DataFrame:
    random = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "amount": random.gamma(2, 50, ROWS),
            "country": random.choice(["DE", "FR", "IT"], ROWS),
            "age": np.where(random.random(ROWS) < 0.2, np.nan, random.uniform(18, 90, ROWS)),
        }
    )


@pytest.fixture(scope="module")
def folder(records: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "schema.yaml").write_text(SCHEMA)
    features = tabserve.train.features(folder / "schema.yaml", records)
    fraud = (records["amount"] > 120).astype(int)
    model = xgboost.XGBClassifier(n_estimators=20, max_depth=3, enable_categorical=True).fit(features, fraud)
    saved = tabserve.train.save(
        model, folder / "fraud", name="fraud", version="3", schema=folder / "schema.yaml", sample=records
    )
    return saved.path


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return load(tabserve.bundle.load(folder), Settings(threads=1, max_rows=500), Metrics())


def ask(predictor: Predictor, inputs: Sequence[Tensor], *outputs: str) -> dict[str, Tensor]:
    request = InferRequest(tuple(inputs), outputs=tuple(RequestedOutput(name) for name in outputs))
    response = asyncio.run(predictor.infer(request, Context()))
    return {tensor.name: tensor for tensor in response.outputs}


def columns(records: pd.DataFrame) -> list[Tensor]:
    country = np.array([value.encode() for value in records["country"]], object)
    return [
        Tensor("amount", "FP64", records["amount"].to_numpy()),
        Tensor("country", "BYTES", country),
        Tensor("age", "FP64", records["age"].to_numpy()),
    ]


def matrix(*rows: Sequence[float]) -> list[Tensor]:
    return [Tensor("input-0", "FP32", np.array(rows, np.float32))]


def test_columns_and_codes_give_the_same_answers(predictor: Predictor, records: pd.DataFrame) -> None:
    codes = {"DE": 0, "FR": 1, "IT": 2}
    rows = [(a, codes[c], g) for a, c, g in zip(records["amount"], records["country"], records["age"], strict=True)]

    by_column = ask(predictor, columns(records))["predict_proba"].array
    by_code = ask(predictor, matrix(*rows))["predict_proba"].array

    assert by_column.shape == (ROWS, 2)
    np.testing.assert_array_equal(by_column, by_code)


def test_default_outputs_are_those_of_the_metadata(predictor: Predictor, records: pd.DataFrame) -> None:
    assert list(ask(predictor, columns(records))) == [spec.name for spec in predictor.metadata.outputs]


def test_optional_outputs_come_by_name_with_the_declared_datatype_and_shape(
    predictor: Predictor, records: pd.DataFrame
) -> None:
    declared = json.loads(predictor.metadata.properties["optional_outputs"])
    names = [spec["name"] for spec in declared]
    got = ask(predictor, columns(records), *names)

    assert sorted(names) == ["contributions", "label", "margin", "predict"]
    for spec in declared:
        tensor = got[spec["name"]]
        assert (tensor.datatype, tensor.array.shape[1:]) == (spec["datatype"], tuple(spec["shape"][1:]))
    np.testing.assert_allclose(got["contributions"].array.sum(axis=1), got["margin"].array, atol=1e-4)
    assert set(got["label"].array.tolist()) == {"accept", "fraud"}


def test_a_request_gives_the_same_bytes_alone_and_among_others(predictor: Predictor, records: pd.DataFrame) -> None:
    parts = [records.iloc[at : at + 1 + at % 5] for at in range(0, 100, 10)]
    alone = [ask(predictor, columns(part))["predict_proba"].array.tobytes() for part in parts]

    async def together() -> list[bytes]:
        requests = [InferRequest(tuple(columns(part))) for part in parts]
        answers = await asyncio.gather(*(predictor.infer(request, Context()) for request in requests))
        return [answer.outputs[0].array.tobytes() for answer in answers]

    assert asyncio.run(together()) == alone


def test_no_rows_give_no_answers(predictor: Predictor, records: pd.DataFrame) -> None:
    got = ask(predictor, columns(records.iloc[:0]), "predict_proba", "label")

    assert [got[name].array.shape for name in ("predict_proba", "label")] == [(0, 2), (0,)]


def test_a_value_may_be_missing_only_where_the_schema_says_so(predictor: Predictor, records: pd.DataFrame) -> None:
    some = records.iloc[:3].copy()
    some["age"] = np.nan
    assert ask(predictor, columns(some))["predict_proba"].array.shape == (3, 2)

    some.loc[1, "amount"] = np.nan
    with pytest.raises(InvalidRequest, match="feature `amount`: expected a value, got none at row 1"):
        ask(predictor, columns(some))
    with pytest.raises(InvalidRequest, match="feature `amount`: expected a value, got none at row 1"):
        ask(predictor, matrix((1, 0, 20), (np.nan, 0, 20)))
    with pytest.raises(InvalidRequest, match="feature `country`: expected a value, got none at row 0"):
        ask(predictor, matrix((1, np.nan, 20)))


@pytest.mark.parametrize("code", [-1, 3, 0.5, 1e9])
def test_a_code_of_no_category_is_refused(predictor: Predictor, code: float) -> None:
    with pytest.raises(InvalidRequest, match="feature `country`: expected a code from 0 to 2 at row 1"):
        ask(predictor, matrix((1, 0, 20), (1, code, 20)))


def test_an_unknown_category_is_named(predictor: Predictor, records: pd.DataFrame) -> None:
    inputs = columns(records.iloc[:2])
    inputs[1] = Tensor("country", "BYTES", np.array([b"DE", b"XX"], object))

    with pytest.raises(InvalidRequest, match=r'input `country`: expected one of DE, FR, IT, got "XX" at \[1\]'):
        ask(predictor, inputs)


def test_too_many_rows_are_refused(predictor: Predictor) -> None:
    with pytest.raises(RequestTooLarge, match="expected at most 500 rows, got 501"):
        ask(predictor, matrix(*[(1, 0, 20)] * 501))


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["amount", "country"], "`age` is missing"),
        (["amount", "country", "age", "extra"], 'got "extra"'),
        (["amount", "amount", "country", "age"], "got one twice"),
        (["input-0", "age"], 'got "age" as well'),
        (["input-0", "input-0"], 'got "input-0" as well'),
    ],
)
def test_wrong_names_are_told(predictor: Predictor, names: list[str], problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        ask(predictor, [Tensor(name, "FP64", np.zeros(1)) for name in names])


def test_v1_takes_objects_and_rows(predictor: Predictor) -> None:
    def predict(instances: object) -> object:
        body = json.dumps({"instances": instances}).encode()
        return json.loads(asyncio.run(predictor.predict(body, Context())))

    named = [{"amount": 500.0, "country": "DE", "age": None}, {"amount": 1, "country": "FR", "age": 30}]
    assert predict(named) == {"predictions": [1, 0]}
    assert predict([[500.0, 0, None], [1, 1, 30]]) == {"predictions": [1, 0]}


@pytest.mark.parametrize(
    ("instances", "problem"),
    [
        ([[1, 2], [1, 2, 3]], "instance 1: expected 2 values, as in the first, got 3"),
        ([{"amount": 1}, [1]], "instance 1: expected an object with amount, like the first"),
        ([{"amount": 1}, {"country": "DE"}], "instance 1: expected an object with amount, like the first"),
        ([{"amount": "x"}, {"amount": 1}], "`amount`: expected text or numbers, got both"),
        ("x", "Expected `array`, got `str`"),
        ([1], r"\$\.instances\[0\]"),
    ],
)
def test_v1_instances_that_do_not_fit_are_refused(predictor: Predictor, instances: object, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        asyncio.run(predictor.predict(json.dumps({"instances": instances}).encode(), Context()))


def test_predictions_are_counted_by_class(folder: Path, records: pd.DataFrame) -> None:
    metrics = Metrics()
    counted = load(tabserve.bundle.load(folder), Settings(threads=1), metrics)
    for part in (records, records.iloc[:1]):
        ask(counted, columns(part), "predict_proba")

    page = metrics.page().decode()
    counts = [float(line.split()[-1]) for line in page.splitlines() if line.startswith("tabserve_predictions_total{")]
    assert sum(counts) == ROWS + 1
    assert f"tabserve_score_count {ROWS + 1}" in page
    assert total(page, "tabserve_first_class_total") == 2
    assert 'tabserve_first_score_count{arm="split"} 2.0' in page


def total(page: str, name: str) -> float:
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(f"{name}{{"))


def test_metadata_tell_of_an_engine_that_is_not_used_without_paths_of_the_machine(tmp_path: Path) -> None:
    bundle = saved(LogisticRegression(), tmp_path, engine="onnxruntime")
    bundle.file("model.onnx").write_bytes(b"\x08" + b"\xff" * 100)
    resealed(bundle.path)
    settings = Settings(model_dir=str(bundle.path))
    dropped = load(tabserve.bundle.load(bundle.path), settings, Metrics()).metadata.properties["engines_dropped"]

    assert "model.onnx: not a graph ONNX Runtime can read" in dropped
    assert "/" not in dropped


def recorded(predictor: Predictor, inputs: Sequence[Tensor], added: str) -> InferResponse:
    request = InferRequest(tuple(inputs), outputs=(RequestedOutput("predict"),), parameters={"recorded": added})
    return asyncio.run(predictor.infer(request, Context()))


def test_what_is_recorded_is_added_with_the_engine_and_its_versions(
    predictor: Predictor, records: pd.DataFrame
) -> None:
    response = recorded(predictor, columns(records[:3]), "predict_proba,predict")
    assert [tensor.name for tensor in response.outputs] == ["predict", "predict_proba"]
    assert response.parameters["engine"] == "xgboost"
    assert f"xgboost {xgboost.__version__}" in str(response.parameters["versions"])
    assert [tensor.name for tensor in recorded(predictor, columns(records[:0]), "").outputs] == ["predict"]


def test_only_outputs_can_be_recorded(predictor: Predictor, records: pd.DataFrame) -> None:
    with pytest.raises(InvalidRequest, match=r'outputs: expected one of predict, .*; got "score"'):
        recorded(predictor, columns(records[:1]), "score")
