"""Bad records of mixed types are refused, and no part of a request is logged (fault catalogue 4 to 10 and 59)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from tests.contract.payload import Json, Payload, Tensor
from tests.contract.target import Target, grpc_outputs
from tests.faults.conftest import Subject
from tests.serving import Service

RECORD: Json = {
    "amount": 12.5,
    "country": "DE",
    "channel": "web",
    "opened": "2026-01-31T12:00:00Z",
    "paid": "2026-03-31T03:00:00Z",
    "purchases": 4,
    "income": None,
}
COLUMNS: dict[str, tuple[str, list[Any]]] = {
    "amount": ("FP64", [12.5]),
    "country": ("BYTES", [b"DE"]),
    "channel": ("BYTES", [b"web"]),
    "purchases": ("FP64", [4]),
    "income": ("FP64", [np.nan]),
    "account_age": ("FP64", [59.5]),
    "hour": ("FP64", [3]),
    "weekday": ("FP64", [1]),
}


@pytest.fixture(scope="module")
def records(payments_transformer: Service) -> Target:
    """The service that takes records."""
    return Subject(payments_transformer).target


@pytest.fixture(scope="module")
def columns(payments_predictor: Service) -> Target:
    """The service that takes one column per feature."""
    return Subject(payments_predictor).target


def payload() -> Payload:
    """Valid columns."""
    return Payload(tuple(_tensor(name, datatype, values) for name, (datatype, values) in COLUMNS.items()))


def _tensor(name: str, datatype: str, values: list[Any]) -> Tensor:
    return Tensor(name, datatype, np.array(values, object if datatype == "BYTES" else np.float64))


def predict(target: Target, *given: Any) -> Any:
    """The answer to V1 records."""
    return target.post(f"/v1/models/{target.model}:predict", {"instances": given})


def test_a_record_is_decided(records: Target) -> None:
    answer = predict(records, RECORD)
    assert answer.status == 200, answer.body
    (decision,) = answer.json()["predictions"]
    assert decision["decision"] in ("accept", "review", "block")
    assert 0 <= decision["score"] <= 1


BAD: dict[str, tuple[Json, list[str]]] = {
    "an unknown category": ({"channel": "XX"}, ["channel", "app, shop, web", '"XX"']),
    "a number for a category": ({"channel": 5}, ["channel"]),
    "text for a number": ({"amount": "much"}, ["amount"]),
    "truth for a number": ({"amount": True}, ["amount"]),
    "below the range": ({"amount": -1}, ["amount", "0"]),
    "above the range": ({"amount": 1e9}, ["amount", "100000"]),
    "a fraction for an integer": ({"purchases": 1.5}, ["purchases"]),
    "null for a required field": ({"amount": None}, ["amount"]),
    "no time": ({"opened": "yesterday"}, ["opened"]),
    "a time that is none": ({"opened": "2026-02-30T00:00:00Z"}, ["opened"]),
    "a list": ({"amount": [1]}, ["amount"]),
    "an object": ({"channel": {"a": 1}}, ["channel"]),
    "an unknown field": ({"amuont": 1}, ["amuont"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_record_is_named_with_its_index_and_field(records: Target, case: str) -> None:
    changes, words = BAD[case]
    error = predict(records, RECORD, RECORD, {**RECORD, **changes}).assert_error(400, 400)
    assert all(word in error for word in ["2", *words]), error


@pytest.mark.parametrize("field", ["amount", "country", "channel", "opened", "purchases"])
def test_a_record_without_a_required_field_is_refused(records: Target, field: str) -> None:
    error = predict(records, {name: RECORD[name] for name in RECORD if name != field}).assert_error(400, 400)
    assert field in error


INSTANCES: list[Any] = [None, 5, "x", {}, [5], [None], ["x"], [[1, 2]], [RECORD, [1]], [[RECORD]]]


@pytest.mark.parametrize("instances", INSTANCES, ids=lambda value: json.dumps(value)[:30])
def test_instances_that_are_no_records_are_refused(records: Target, instances: Any) -> None:
    path = f"/v1/models/{records.model}:predict"
    records.post(path, {"instances": instances}).assert_error(400, 400)


@pytest.mark.parametrize("service", ["columns", "records"])
def test_no_instances_have_no_predictions(request: pytest.FixtureRequest, service: str) -> None:
    answer = predict(request.getfixturevalue(service))
    assert (answer.status, answer.json()) == (200, {"predictions": []})


@pytest.mark.parametrize("service", ["columns", "records"])
def test_no_rows_give_empty_outputs_over_rest_and_grpc(request: pytest.FixtureRequest, service: str) -> None:
    target: Target = request.getfixturevalue(service)
    none = target.payload.rows(0)
    by_rest = target.infer(none.json()).outputs()
    by_grpc = grpc_outputs(target.call("ModelInfer", none.message(target.model)))
    declared = {output["name"]: [0, *output["shape"][1:]] for output in target.metadata["outputs"]}
    assert {name: list(tensor.array.shape) for name, tensor in by_rest.items()} == declared
    assert {name: list(tensor.array.shape) for name, tensor in by_grpc.items()} == declared


def with_column(name: str, **changes: Any) -> Callable[[Payload], Payload]:
    """The payload with one of its tensors changed."""
    return lambda given: Payload(tuple(replace(t, **changes) if t.name == name else t for t in given.tensors))


BAD_COLUMNS: dict[str, tuple[Callable[[Payload], Payload], list[str]]] = {
    "an unknown category": (with_column("channel", array=np.array([b"XX"], object)), ["channel", "app", '"XX"']),
    "a category that is not UTF-8": (with_column("channel", array=np.array([b"\xff"], object)), ["channel"]),
    "a number for a category": (with_column("channel", datatype="FP64", array=np.array([1.0])), ["channel", "BYTES"]),
    "text for a number": (with_column("amount", datatype="BYTES", array=np.array([b"1"], object)), ["amount"]),
    "more than an FP32": (with_column("amount", array=np.array([1e39])), ["amount"]),
    "infinity": (with_column("amount", array=np.array([np.inf])), ["amount"]),
    "a row more": (with_column("amount", array=np.array([1.0, 2.0])), ["rows"]),
    "two dimensions": (with_column("amount", array=np.array([[1.0, 2.0]])), ["amount"]),
    "a column less": (lambda given: Payload(given.tensors[1:]), ["input"]),
    "a column twice": (lambda given: Payload((*given.tensors, given.tensors[0])), ["twice"]),
}


@pytest.mark.parametrize("case", BAD_COLUMNS)
@pytest.mark.parametrize("service", ["columns", "records"])
def test_a_bad_column_is_named_over_rest_and_grpc(request: pytest.FixtureRequest, service: str, case: str) -> None:
    target: Target = request.getfixturevalue(service)
    change, words = BAD_COLUMNS[case]
    error = target.infer_binary(*change(payload()).binary()).assert_error(400, 400)
    assert all(word in error for word in words), error
    with pytest.raises(grpc.RpcError) as failure:
        target.call("ModelInfer", change(payload()).message(target.model))
    assert failure.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert failure.value.details() == error


@pytest.mark.parametrize("service", ["columns", "records"])
def test_missing_values_are_taken_where_the_model_takes_them(request: pytest.FixtureRequest, service: str) -> None:
    target: Target = request.getfixturevalue(service)
    (output,) = target.infer(payload().json(outputs=[{"name": "predict_proba"}]).copy() | nulls()).json()["outputs"]
    assert all(0 <= probability <= 1 for probability in output["data"])


def nulls() -> Json:
    """The columns, with JSON's null for the income."""
    inputs = [
        {**tensor.json(), "data": [None]} if tensor.name == "income" else tensor.json() for tensor in payload().tensors
    ]
    return {"inputs": inputs}


MARKER = "xq7marker7qx"


def marked() -> list[Json]:
    """V2 requests that hold the marker somewhere."""
    content = payload().json()
    named = [{**tensor, "name": MARKER} for tensor in content["inputs"]]
    typed = [{**tensor, "datatype": MARKER} for tensor in content["inputs"]]
    filled = [{**tensor, "datatype": "BYTES", "data": [MARKER]} for tensor in content["inputs"]]
    tagged = [{**tensor, "parameters": {MARKER: MARKER}} for tensor in content["inputs"]]
    return [
        *({"inputs": inputs} for inputs in (named, typed, filled, tagged)),
        {**content, "id": MARKER},
        {**content, "parameters": {MARKER: MARKER}},
        {**content, "outputs": [{"name": MARKER}]},
        {MARKER: MARKER},
        {"inputs": [MARKER]},
    ]


def send_marked(target: Target) -> None:
    """Send everything that holds the marker, over REST and gRPC, also in headers and paths."""
    answers = [target.infer(content) for content in marked()]
    answers += [predict(target, record) for record in ({**RECORD, "channel": MARKER}, {MARKER: 1}, MARKER, [MARKER])]
    headers = {"Content-Type": MARKER, "x-request-timeout-ms": MARKER, "traceparent": MARKER, MARKER: MARKER}
    answers += [target.http("POST", f"{target.path}/infer", MARKER, {name: value}) for name, value in headers.items()]
    answers += [target.post(f"/v2/models/{MARKER}/infer", {}), target.http("GET", f"/{MARKER}?{MARKER}={MARKER}")]
    assert {answer.status for answer in answers} <= {200, 400, 404, 415}
    broken = with_column("channel", array=np.array([MARKER.encode()], object))(payload()).message(target.model)
    assert target.refusal("ModelInfer", broken) == grpc.StatusCode.INVALID_ARGUMENT
    assert target.refusal("ModelInfer", payload().message(MARKER)) == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("service", ["payments_predictor", "payments_transformer"])
def test_nothing_of_a_request_is_in_logs_or_metrics(request: pytest.FixtureRequest, service: str) -> None:
    send_marked(Subject(request.getfixturevalue(service)).target)
    both: list[Service] = [request.getfixturevalue(name) for name in ("payments_predictor", "payments_transformer")]
    assert [MARKER in one.text() for one in both] == [False, False]
    assert [MARKER in one.metrics() for one in both] == [False, False]
