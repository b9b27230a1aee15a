"""Both services keep the contract that they publish: pages, answers and refusals are as the OpenAPI document says."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

import tabserve.bundle
from tabserve.bundle import expected, metadata
from tabserve.inference.grpc import open_inference_pb2 as pb
from tabserve.inference.rest import openapi
from tests.contract.payload import Json
from tests.contract.target import Answer, Target
from tests.faults.conftest import Subject
from tests.serving import Service

DESCRIBE = {"predictor": metadata.of_predictor, "transformer": metadata.of_transformer}


@pytest.fixture(params=["predictor", "transformer", "payments_predictor", "payments_transformer"])
def described(request: pytest.FixtureRequest) -> tuple[Target, Json]:
    """A service, and the document that its bundle has for it."""
    example, _, kind = request.param.rpartition("_")
    bundle = tabserve.bundle.load(request.getfixturevalue(f"{example}_bundle" if example else "bundle"))
    document: Json = json.loads(json.dumps(openapi.document(DESCRIBE[kind](bundle))))
    return Subject(request.getfixturevalue(request.param)).target, document


def assert_answers(document: Json, path: str, method: str, answer: Answer) -> None:
    """Assert that the document has the answer's status, media type and body."""
    responses = document["paths"][path][method]["responses"]
    response = responses[str(answer.status)]
    name = response.get("$ref", "").removeprefix("#/components/responses/")
    content = document["components"]["responses"][name]["content"] if name else response["content"]
    schema = content[answer.headers["Content-Type"]]["schema"]
    Draft202012Validator(schema | {"components": document["components"]}).validate(answer.json())


def test_the_document_and_the_schemas_are_those_of_the_bundle(described: tuple[Target, Json]) -> None:
    target, document = described
    schemas = target.http("GET", f"{target.path}/schema").json()

    assert target.http("GET", "/openapi.json").json() == document
    assert [document["components"]["schemas"][word.capitalize()] for word in schemas] == [
        {key: value for key, value in schema.items() if key not in ("$schema", "title")} for schema in schemas.values()
    ]


def test_the_metadata_has_the_schemas_over_both_protocols(described: tuple[Target, Json]) -> None:
    target, _ = described
    schemas = target.http("GET", f"{target.path}/schema").json()
    over_grpc = target.call("ModelMetadata", pb.ModelMetadataRequest(name=target.model)).properties

    assert {word: json.loads(over_grpc[word]) for word in schemas} == schemas
    assert dict(over_grpc) == target.metadata["properties"]


def test_pages_are_as_the_document_says(described: tuple[Target, Json]) -> None:
    target, document = described
    pages = [path for path, operations in document["paths"].items() if "get" in operations]

    assert len(pages) >= 12
    for path in pages:
        assert_answers(document, path, "get", target.http("GET", path))


def test_answers_and_refusals_are_as_the_document_says(described: tuple[Target, Json]) -> None:
    target, document = described
    works = [path for path, operations in document["paths"].items() if "post" in operations]
    contents: list[Any] = [{}, [], {"instances": []}, {"instances": [3]}, {"inputs": []}, target.payload.json()]

    statuses = set()
    for path, content in itertools.product(works, contents):
        answer = target.post(path, content)
        assert_answers(document, path, "post", answer)
        statuses.add(answer.status)
        assert_answers(document, path, "post", target.http("POST", path, "{}", {"Content-Type": "text/plain"}))
    assert statuses == {200, 400}


def test_decisions_on_the_reference_s_records_fit(payments_bundle: Path, payments_transformer: Service) -> None:
    target, bundle = Subject(payments_transformer).target, tabserve.bundle.load(payments_bundle)
    schemas = target.http("GET", f"{target.path}/schema").json()
    records = [expected.record(bundle, row) for row in range(200)]
    answer = target.post(f"/v1/models/{target.model}:predict", {"instances": records}).json()["predictions"]

    takes, gives = Draft202012Validator(schemas["record"]), Draft202012Validator(schemas["decision"])
    assert [takes.is_valid(record) for record in records] == [True] * 200
    assert [gives.is_valid(decision) for decision in answer] == [True] * 200


def test_a_batch_with_bad_records_is_answered_as_the_document_says(payments_transformer: Service) -> None:
    target = Subject(payments_transformer).target
    document = target.http("GET", "/openapi.json").json()
    path, works = f"/v1/models/{target.model}:predict", {"predict", "infer", "inferVersion1"}
    good = {"amount": 12.5, "country": "DE", "channel": "web", "opened": "2026-01-31T12:00:00Z", "purchases": 4}
    body = json.dumps({"instances": [good, {}]})
    answer = target.http("POST", path, body, {"x-on-error": "record"})

    assert_answers(document, path, "post", answer)
    assert [one is None for one in answer.json()["predictions"]] == [False, True]
    operations = [one["post"] for one in document["paths"].values() if "post" in one]
    named = {one["operationId"] for one in operations if "x-on-error" in [each["name"] for each in one["parameters"]]}
    assert named == works


VALUES: list[Any] = [None, True, -1, 0, 2.5, 1e6, 3.5e38, "DE", "web", "", "2026-03-31T03:00:00Z", [], {}]


@pytest.mark.parametrize("name", ["amount", "country", "channel", "opened", "paid", "purchases", "income", "more"])
def test_a_record_is_decided_if_and_only_if_it_fits(payments_transformer: Service, name: str) -> None:
    target = Subject(payments_transformer).target
    schema = target.http("GET", f"{target.path}/schema").json()["record"]
    record = {"amount": 12.5, "country": "DE", "channel": "web", "opened": "2026-01-31T12:00:00Z", "purchases": 4}
    records = [record | {name: value} for value in VALUES]
    answers = [target.post(f"/v1/models/{target.model}:predict", {"instances": [one]}).status for one in records]

    fits = Draft202012Validator(schema, format_checker=FormatChecker(["date-time"])).is_valid
    assert answers == [200 if fits(one) else 400 for one in records]
