"""With `on_error: record` the good records of a batch are answered, and every fault of the bad ones is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xgboost import XGBClassifier

import tabserve.train
from tabserve.arrays import Array
from tabserve.inference.errors import InvalidRequest, RequestTooLarge
from tabserve.inference.grpc import open_inference_pb2 as pb
from tabserve.inference.model import Context
from tabserve.inference.tensors import InferRequest, InferResponse, RequestedOutput, Tensor
from tabserve.schema.columns import Sifted
from tabserve.schema.reading import parse
from tabserve.schema.records import Records
from tests.contract.target import Target
from tests.serving import Service
from tests.unit.bundles import records as sample
from tests.unit.bundles import schema, target
from tests.unit.cores import Cores
from tests.unit.test_records import IDENTIFIED, JSON, NOW, RECORD, VALID, body, tensors

pytestmark = pytest.mark.anyio
SIFTING = Context(on_error="record", trace={"x-request-id": "r-7"})


@pytest.fixture(scope="module")
def reader() -> Records:
    return Records(parse(IDENTIFIED, "schema.yaml"), clock=lambda: NOW)


def told(sifted: Sifted) -> list[str]:
    assert len(sifted.places) == len(sifted.columns["amount"])
    return [str(fault) for fault in sifted.faults]


def test_every_fault_of_a_record_is_told(reader: Records) -> None:
    bad = {"amount": "lots", "country": "XX", "visits": 1.5, "opened": [2024], "tier": None, "contry": 1, "payment": {}}
    sifted = reader.sift(body(RECORD, RECORD | bad, 7, {"amount": -1}, RECORD | {"payment": "p" * 300}, RECORD))

    assert sifted.places.tolist() == [0, 5]
    fields = "amount, country, channel, visits, member, opened, asked, income, rate, region, tier, payment"
    assert told(sifted) == [
        "record 1, field `contry`: expected no field of this name, got one (did you mean `country`?)",
        'record 1, field `amount`: expected a number from 0 to 1000 EUR, got "lots"',
        "record 1, field `opened`: expected an ISO 8601 time or seconds since 1970, got an array",
        "record 1, field `payment`: expected a string or a whole number, got an object",
        "record 1, field `visits`: expected a whole number of at least 1, got 1.5",
        'record 1, field `country`: expected one of DE, FR, IT, got "XX"',
        f"record 2, field ``: expected an object with the fields {fields}, got 7",
        "record 3, field `country`: expected one of DE, FR, IT, got nothing",
        "record 3, field `channel`: expected one of web, other, got nothing",
        "record 3, field `visits`: expected a whole number of at least 1, got nothing",
        "record 3, field `member`: expected true or false, got nothing",
        "record 3, field `opened`: expected an ISO 8601 time or seconds since 1970, got nothing",
        "record 3, field `amount`: expected a number from 0 to 1000 EUR, got -1",
        "record 4, field `payment`: expected at most 256 characters, got 300",
    ]


def test_good_records_become_the_columns_that_they_become_without_the_bad_ones(reader: Records) -> None:
    good = [RECORD | {"payment": f"p-{at}", "income": at} for at in range(3)]
    sifted = reader.sift(body(good[0], {"amount": 1}, good[1], None, good[2]))
    alone = reader.decode(body(*good))

    assert sifted.places.tolist() == [0, 2, 4]
    assert {name: column.tolist() for name, column in sifted.columns.items() if name != "rate"} == {
        name: pytest.approx(column.tolist(), nan_ok=True) if column.dtype != object else column.tolist()
        for name, column in alone.items()
        if name != "rate"
    }


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"instances": 3}', b'{"instances": [{"amount": NaN}]}'])
def test_what_is_no_body_of_records_is_refused_as_a_whole(reader: Records, data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        reader.sift(data)


RECORDS = st.lists(
    VALID | st.fixed_dictionaries({}, optional=dict.fromkeys([*RECORD, "payment", "x"], JSON)) | JSON, max_size=4
)


@given(RECORDS)
def test_a_record_fits_in_a_batch_if_it_fits_alone(instances: list[Any]) -> None:
    reader = Records(parse(IDENTIFIED, "schema.yaml"), clock=lambda: NOW)
    try:
        sifted = reader.sift(body(*instances))
    except InvalidRequest:
        with pytest.raises(InvalidRequest):
            reader.decode(body(*instances))
        return
    assert sorted({*sifted.places.tolist(), *(fault.record for fault in sifted.faults)}) == list(range(len(instances)))
    assert [fits(reader, one) for one in instances] == [at in sifted.places for at in range(len(instances))]
    "".join(told(sifted)).encode()


def fits(reader: Records, record: Any) -> bool:
    try:
        reader.decode(body(record))
    except InvalidRequest:
        return False
    return True


def test_columns_are_sifted_too(reader: Records) -> None:
    changes = {
        "country": Tensor("country", "BYTES", np.array([b"DE", b"\xff"], object)),
        "amount": Tensor("amount", "FP64", np.array([1.0, np.nan])),
        "opened": Tensor("opened", "BYTES", np.array([b"2024-01-01", b"soon"], object)),
        "payment": Tensor("payment", "BYTES", np.array([b"p-1", b"\xfe"], object)),
    }
    sifted = reader.sift_tensors(tensors(**changes))

    assert (sifted.places.tolist(), sifted.columns["payment"].tolist()) == ([0], ["p-1"])
    assert told(sifted) == [
        "record 1, field `payment`: expected UTF-8, got other bytes",
        "record 1, field `country`: expected UTF-8, got other bytes",
        "record 1, field `amount`: expected a number from 0 to 1000 EUR, got nan",
        'record 1, field `opened`: expected an ISO 8601 time or seconds since 1970, got "soon"',
    ]


@pytest.mark.parametrize(("value", "fit"), [(0.0, [0, 1]), (1.0, [0, 1]), (0.5, [0]), (np.nan, [0]), (-np.inf, [0])])
def test_a_column_of_booleans_may_be_numbers(reader: Records, value: float, fit: list[int]) -> None:
    sifted = reader.sift_tensors(tensors(member=Tensor("member", "FP64", np.array([1.0, value]))))
    assert sifted.places.tolist() == fit


@pytest.fixture(scope="module")
def cores(tmp_path_factory: pytest.TempPathFactory) -> Cores:
    folder: Path = tmp_path_factory.mktemp("on_error")
    path = schema(folder, extra="  reasons: {top: 1}\n")
    path.write_text(f"id: payment\n{path.read_text()}")
    model = XGBClassifier(n_estimators=5).fit(tabserve.train.features(path, sample()), target("binary"))
    return Cores(tabserve.train.save(model, folder / "bundle", name="m", version="1", schema=path, sample=sample()))


async def predict(cores: Cores, *instances: Any, context: Context = SIFTING) -> Any:
    return orjson.loads(await cores.transformer.predict(orjson.dumps({"instances": instances}), context))


async def test_v1_answers_null_for_a_bad_record(cores: Cores) -> None:
    good = [{"amount": 1, "age": 30}, {"amount": 200, "age": 60, "payment": "p-2"}]
    answer = await predict(cores, good[0], {"amount": -1, "agee": 30}, good[1])
    alone = await predict(cores, *good, context=Context())

    assert answer["predictions"][1] is None
    found = [one for one in answer["predictions"] if one]
    assert [one.pop("payment") for one in found] == ["r-7/0", "p-2"]
    assert found == [{name: value for name, value in one.items() if name != "payment"} for one in alone["predictions"]]
    assert answer["errors"] == [
        {"row": 1, "field": "agee", "expected": "no field of this name", "got": "one (did you mean `age`?)"},
        {"row": 1, "field": "age", "expected": "a number", "got": "nothing"},
        {"row": 1, "field": "amount", "expected": "a number of at least 0", "got": "-1"},
    ]


async def test_a_batch_may_be_all_good_all_bad_or_empty(cores: Cores) -> None:
    good, bad = {"amount": 1, "age": 30}, {"amount": 1}
    answers = [await predict(cores, *batch) for batch in ([good, good], [bad, bad], [])]

    assert [[one and one["payment"] for one in answer["predictions"]] for answer in answers] == [
        ["r-7/0", "r-7/1"],
        [None, None],
        [],
    ]
    assert [[error["row"] for error in answer["errors"]] for answer in answers] == [[], [0, 1], []]


async def test_a_record_that_the_model_does_not_accept_is_told_by_its_field(cores: Cores) -> None:
    answer = await predict(cores, {"amount": 1}, {"amount": 1e200, "age": 30}, {"amount": 1, "age": 30})

    assert [one is None for one in answer["predictions"]] == [True, True, False]
    assert answer["errors"][1] == {"row": 1, "field": "amount", "expected": "a number within ±3.4e+38", "got": "1e+200"}


async def test_too_many_records_that_only_the_model_refuses_are_refused_together(cores: Cores) -> None:
    with pytest.raises(InvalidRequest, match="field `amount`: expected a number within"):
        await predict(cores, *[{"amount": 1e200, "age": 30}] * 101)


async def test_too_many_records_are_refused(cores: Cores) -> None:
    with pytest.raises(RequestTooLarge, match="expected at most 10000 records, got 10001"):
        await predict(cores, *[{}] * 10_001)


async def test_many_faults_are_told_one_for_each_record(cores: Cores) -> None:
    answer = await predict(cores, *[{}] * 6_000)
    assert [error["row"] for error in answer["errors"]] == list(range(6_000))


def columns(*ages: float) -> tuple[Tensor, ...]:
    amounts = np.arange(float(len(ages)))
    return Tensor("amount", "FP64", amounts), Tensor("age", "FP64", np.array(ages))


async def infer(cores: Cores, request: InferRequest, context: Context) -> dict[str, Array]:
    response: InferResponse = await cores.transformer.infer(request, context)
    return {tensor.name: tensor.array for tensor in response.outputs}


@pytest.mark.parametrize("by", ["parameter", "header"])
async def test_v2_answers_the_rows_that_fit_and_names_them(cores: Cores, by: str) -> None:
    given = columns(30, np.nan, 50, np.inf)
    parameters: dict[str, Any] = {"on_error": "record"} if by == "parameter" else {}
    context = Context(trace=SIFTING.trace, on_error="record" if by == "header" else "fail")
    made = await infer(cores, InferRequest(given, parameters=parameters), context)
    alone = await infer(
        cores, InferRequest(tuple(Tensor(t.name, t.datatype, t.array[[0, 2]]) for t in given)), Context()
    )

    assert made.pop("row").tolist() == [0, 2]
    assert [json.loads(error) for error in made.pop("errors")] == [
        {"row": 1, "field": "age", "expected": "a number", "got": "nan"},
        {"row": 3, "field": "age", "expected": "a number", "got": "inf"},
    ]
    assert made.pop("payment").tolist() == ["r-7/0", "r-7/2"]
    del alone["payment"]
    assert {name: array.tolist() for name, array in made.items()} == {
        name: array.tolist() for name, array in alone.items()
    }


async def test_the_parameter_is_stronger_than_the_header(cores: Cores) -> None:
    request = InferRequest(columns(np.nan), parameters={"on_error": "fail"})
    with pytest.raises(InvalidRequest, match="record 0, field `age`"):
        await infer(cores, request, SIFTING)


@pytest.mark.parametrize("value", ["skip", True, 1])
async def test_another_value_is_refused(cores: Cores, value: Any) -> None:
    with pytest.raises(InvalidRequest, match='on_error: expected "fail" or "record", got'):
        await infer(cores, InferRequest(columns(1), parameters={"on_error": value}), Context())


async def test_the_predictors_own_tensors_cannot_be_sifted(cores: Cores) -> None:
    plain = (Tensor("input-0", "FP64", np.ones((2, 2))),)
    with pytest.raises(InvalidRequest, match="on_error: expected records, with an input for each field"):
        await infer(cores, InferRequest(plain, outputs=(RequestedOutput("score"),)), SIFTING)
    with pytest.raises(InvalidRequest, match=r"unknown input `agee` \(did you mean `age`\?\)"):
        await infer(cores, InferRequest((columns(1)[0], Tensor("agee", "FP64", np.ones(1)))), SIFTING)


FIELDS = ["radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave_points",
          "symmetry", "fractal_dimension"]  # fmt: skip
PATIENT = dict.fromkeys(FIELDS, 0.1)


def test_the_services_answer_over_v1_and_v2(transformer: Service) -> None:
    service = Target(transformer.url, transformer.grpc, None, None)
    header = {"x-on-error": "record", "content-type": "application/json"}
    instances = json.dumps({"instances": [PATIENT, PATIENT | {"radius": "big", "area": -1}]}).encode()
    v1 = service.http("POST", f"/v1/models/{service.model}:predict", instances, header)
    inputs = [{"name": name, "datatype": "FP64", "shape": [2], "data": [0.1, None]} for name in FIELDS]
    v2 = service.infer({"inputs": inputs, "parameters": {"on_error": "record"}}).outputs()

    assert [one is None for one in v1.json()["predictions"]] == [False, True]
    assert [(error["row"], error["field"]) for error in v1.json()["errors"]] == [(1, "radius"), (1, "area")]
    assert v2["row"].array.tolist() == [0]
    assert [json.loads(error)["field"] for error in v2["errors"].array.tolist()] == FIELDS
    assert service.infer({"inputs": inputs}).status == 400


@pytest.mark.parametrize("by", ["parameter", "metadata"])
def test_the_services_answer_over_grpc(transformer: Service, by: str) -> None:
    request = pb.ModelInferRequest(model_name="breast-cancer")
    for name in FIELDS:
        request.inputs.add(name=name, datatype="FP64", shape=[2]).contents.fp64_contents.extend([0.1, np.inf])
    if by == "parameter":
        request.parameters["on_error"].string_param = "record"
    with grpc.insecure_channel(transformer.grpc) as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        metadata = [("x-on-error", "record")] if by == "metadata" else []
        outputs = {output.name: output for output in infer(request, metadata=metadata, timeout=60).outputs}

    assert list(outputs["row"].contents.int64_contents) == [0]
    assert [json.loads(error)["field"] for error in outputs["errors"].contents.bytes_contents] == FIELDS
    assert list(outputs["decision"].shape) == [1]
