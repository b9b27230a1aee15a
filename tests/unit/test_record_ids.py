"""A record's id goes from the request to its answer; a record without one gets the request's id and its row."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from xgboost import XGBClassifier

import tabserve.train
from tabserve.inference.model import Context
from tabserve.inference.tensors import InferRequest, RequestedOutput, Tensor
from tests.unit.bundles import records, schema, target
from tests.unit.cores import Cores

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def cores(tmp_path_factory: pytest.TempPathFactory) -> Cores:
    folder: Path = tmp_path_factory.mktemp("ids")
    path = schema(folder)
    path.write_text(f"id: payment\n{path.read_text()}")
    model = XGBClassifier(n_estimators=5).fit(tabserve.train.features(path, records()), target("binary"))
    return Cores(tabserve.train.save(model, folder / "bundle", name="m", version="1", schema=path, sample=records()))


def of_request(number: str | None) -> Context:
    return Context(trace={} if number is None else {"x-request-id": number})


async def ids(cores: Cores, *given: Any, request: str | None = "r-7") -> list[str]:
    instances = [{"amount": 1, "age": 30} | ({} if one is None else {"payment": one}) for one in given]
    answer = await cores.transformer.predict(orjson.dumps({"instances": instances}), of_request(request))
    predictions = orjson.loads(answer)["predictions"]
    assert [next(iter(one)) for one in predictions] == ["payment"] * len(given)
    return [one["payment"] for one in predictions]


async def test_v1_answers_with_the_ids(cores: Cores) -> None:
    assert await ids(cores, "p-1", 17, None, "") == ["p-1", "17", "r-7/2", "r-7/3"]


async def test_without_any_id_it_is_a_uuid(cores: Cores) -> None:
    (made,) = await ids(cores, None, request=None)
    assert uuid.UUID(made).version == 4


@pytest.mark.parametrize("outputs", [(), ("payment",), ("score", "payment")])
async def test_v2_answers_with_the_ids(cores: Cores, outputs: tuple[str, ...]) -> None:
    columns = (
        Tensor("payment", "BYTES", np.array([b"p-1", b""], object)),
        Tensor("amount", "FP64", np.array([1.0, 2.0])),
        Tensor("age", "FP64", np.array([30.0, 40.0])),
    )
    request = InferRequest(columns, outputs=tuple(map(RequestedOutput, outputs)))
    answer = {one.name: one for one in (await cores.transformer.infer(request, of_request("r-7"))).outputs}
    assert answer["payment"].array.tolist() == ["p-1", "r-7/1"]
    assert set(answer) >= set(outputs)


async def test_plain_tensors_have_the_ids_of_their_request(cores: Cores) -> None:
    matrix = Tensor("input-0", "FP32", np.array([[1.0, 30.0]], np.float32))
    answer = await cores.transformer.infer(InferRequest((matrix,)), of_request("r-7"))
    assert {one.name: one.array.tolist() for one in answer.outputs}["payment"] == ["r-7/0"]


def test_metadata_name_the_id(cores: Cores) -> None:
    metadata = cores.transformer.metadata
    assert metadata.inputs[0].name == "payment"
    assert "payment" in [spec.name for spec in metadata.outputs]
