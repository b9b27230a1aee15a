"""The contract of a bundle's services: the OpenAPI document is valid, and its schemas are the bundle's."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from tabserve.bundle import Bundle, metadata
from tabserve.bundle.manifest import FeatureSpec, ModelInfo
from tabserve.bundle.model_input import ModelInput, largest
from tabserve.inference.errors import InvalidRequest
from tabserve.inference.rest import openapi
from tabserve.inference.tensors import ModelMetadata, TensorSpec
from tests.unit.unsaved import BINARY, MODEL, REGRESSION, REGRESSOR, SPECS, bundle_of

TARGETS = REGRESSION + "outputs: {targets: [low, high]}\n"
IDENTIFIED = "id: number\n" + BINARY.replace("top: 2", "top: 2, for: [review]")
TEXT = REGRESSION.replace("size, type: number", "size, type: text, max_length: 9").replace("regression", "binary")
WITHOUT_NUMBERS = {"features": SPECS[1:2], "classes": ("a", "b"), "outputs": ("predict",)}
BUNDLES: dict[str, tuple[str, ModelInfo]] = {
    "binary": (BINARY, MODEL),
    "identified": (IDENTIFIED, MODEL),
    "regression": (REGRESSION, REGRESSOR),
    "targets": (TARGETS, msgspec.structs.replace(REGRESSOR, targets=2, datatype="FP64")),
    "words": (TEXT, msgspec.structs.replace(MODEL, **WITHOUT_NUMBERS, likeliest=False)),
}
BARE = ModelMetadata("echo", ("1", "2"), "", (TensorSpec("x", "FP64", (-1,)),), ())
METADATA = {
    "bare": BARE,
    **{f"{name} of the transformer": metadata.of_transformer(bundle_of(*made)) for name, made in BUNDLES.items()},
    **{f"{name} of the predictor": metadata.of_predictor(bundle_of(*made)) for name, made in BUNDLES.items()},
}


def bundle(name: str) -> Bundle:
    return bundle_of(*BUNDLES[name])


def valid(schema: dict[str, Any], values: list[Any]) -> list[bool]:
    return [Draft202012Validator(schema).is_valid(value) for value in values]


@pytest.mark.parametrize("described", METADATA.values(), ids=METADATA)
def test_the_openapi_document_is_valid(described: ModelMetadata) -> None:
    document = orjson.loads(orjson.dumps(openapi.document(described)))

    OpenAPIV31SpecValidator(document).validate()
    assert document["info"]["title"] == described.name
    assert f"/v2/models/{described.name}/versions/{described.versions[-1]}/infer" in document["paths"]


@pytest.mark.parametrize("described", METADATA.values(), ids=METADATA)
def test_the_document_s_operations_have_names_of_their_own(described: ModelMetadata) -> None:
    paths = openapi.document(described)["paths"].values()
    names = [operation["operationId"] for path in paths for operation in path.values()]

    assert len(names) == len(set(names)) > 15


@pytest.mark.parametrize("described", METADATA.values(), ids=METADATA)
def test_each_schema_is_whole_in_itself(described: ModelMetadata) -> None:
    schemas = described.contract.schemas

    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    assert [schema["$schema"] for schema in schemas.values()] == ["https://json-schema.org/draft/2020-12/schema"] * 2


def test_records_and_decisions_are_the_transformer_s() -> None:
    described = metadata.of_transformer(bundle("identified"), "mine")
    schemas = described.contract.schemas

    assert (described.name, [*schemas]) == ("mine", ["record", "decision"])
    assert [*schemas["record"]["properties"]] == ["number", "amount", "country", "opened"]
    assert schemas["record"]["properties"]["amount"]["maximum"] == pytest.approx(3.4e38, rel=0.01)  # FP32
    assert [*schemas["decision"]["properties"]] == ["number", "decision", "score", "label", "reasons"]
    assert schemas["decision"]["properties"]["decision"]["enum"] == ["review", "accept"]
    assert schemas["decision"]["properties"]["label"]["enum"] == ["accept", "fraud"]


def test_what_metadata_cannot_say_of_a_tensor_is_in_its_properties() -> None:
    described = metadata.of_transformer(bundle("binary"))

    assert orjson.loads(described.all_properties["record"]) == described.contract.schemas["record"]
    assert orjson.loads(described.all_properties["decision"]) == described.contract.schemas["decision"]
    assert BARE.all_properties == {}


def test_an_instance_of_the_predictor_is_a_row_or_features_by_name() -> None:
    row = metadata.of_predictor(bundle("regression")).contract.takes
    named = metadata.of_predictor(bundle("binary")).contract.takes

    assert valid(row, [[1.5], {"size": 1}, [], [1, 2], [None], {}, {"size": None}]) == [True] * 2 + [False] * 5
    ours = {"amount": 1, "country": "DE", "hour": 3}
    others = [ours | {"country": ""}, ours | {"country": "XX"}, ours | {"amount": None}, {"amount": 1}, [1, 2, 3]]
    assert valid(named, [ours, *others]) == [True, True] + [False] * 4


def test_a_request_of_the_predictor_has_instances_of_one_kind() -> None:
    document = openapi.document(metadata.of_predictor(bundle("regression")))
    request = document["components"]["schemas"]["PredictRequest"]

    contents = [{"instances": instances} for instances in ([[1], [2]], [{"size": 1}], [], [[1], {"size": 1}])]
    assert valid(request, contents) == [True, True, True, False]


def test_a_prediction_is_a_class_or_a_value_or_several() -> None:
    of = {name: metadata.of_predictor(bundle(name)).contract.gives for name in BUNDLES}

    assert valid(of["binary"], [0, 1, 2, "0", None]) == [True, True, False, False, False]
    assert valid(of["words"], ["a", "c"]) == [True, False]
    assert valid(of["regression"], [1.5, None, "1"]) == [True, True, False]
    assert valid(of["targets"], [[1, 2.5], [1], 1]) == [True, False, False]


LARGEST = float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    ("datatype", "range_", "limit"),
    [("FP32", "", 2.0**128 - 2.0**103), ("FP64", "FP32", math.nextafter(LARGEST, math.inf)), ("FP64", "", None)],
)
def test_a_number_may_be_as_large_as_the_model_takes(datatype: Any, range_: Any, limit: float | None) -> None:
    """A number that rounds to the largest of the model's datatype is taken; without a limit, there is no bound."""
    model = msgspec.structs.replace(REGRESSOR, datatype=datatype, range=range_)
    row = metadata.of_predictor(bundle_of(REGRESSION, model)).contract.takes["anyOf"][0]["items"]

    assert row.get("maximum") == (limit and math.nextafter(limit, 0))
    assert (row.get("minimum"), row["type"]) == (limit and -row["maximum"], ["number"])


@pytest.mark.parametrize("other", [1.0, math.nan])
@pytest.mark.parametrize(("datatype", "range_"), [("FP32", ""), ("FP64", "FP32")])
def test_the_predictor_takes_the_largest_number_and_none_beyond(datatype: Any, range_: Any, other: float) -> None:
    features = (FeatureSpec("a", "number", (), "a"), FeatureSpec("b", "number", (), "b"))
    model = msgspec.structs.replace(REGRESSOR, datatype=datatype, range=range_, features=features)
    taken = ModelInput(model, ("b",))
    edge = largest(model)

    for sign in (1, -1):
        columns = {"a": np.array([sign * edge]), "b": np.array([other])}
        assert np.isfinite(np.asarray(taken.of_columns(columns))[0, 0])
        with pytest.raises(InvalidRequest, match=r"within ±3\.4"):
            taken.of_columns(columns | {"a": np.array([sign * math.nextafter(edge, math.inf)])})


def test_text_has_its_length() -> None:
    text = msgspec.structs.replace(MODEL, features=(FeatureSpec("size", "text", (), "size", max_length=9),))
    made = bundle_of(TEXT, text)

    assert valid(metadata.of_predictor(made).contract.takes, [{"size": "x" * 9}, {"size": "x" * 10}]) == [True, False]
    assert valid(metadata.of_transformer(made).contract.takes, [{"size": "x" * 9}, {"size": "x" * 10}]) == [True, False]
