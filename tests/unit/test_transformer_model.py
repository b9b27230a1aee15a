"""The transformer's own logic, with a stand-in for the predictor."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest

from tabserve.arrays import Array
from tabserve.bundle.loading import Bundle
from tabserve.bundle.manifest import FeatureSpec, PreprocessorInfo
from tabserve.inference.errors import InvalidRequest, Overloaded, RequestTooLarge
from tabserve.inference.metrics import Metrics
from tabserve.inference.model import Context
from tabserve.inference.tensors import InferRequest, InferResponse, RequestedOutput, Tensor
from tabserve_transformer.model import Transformer
from tabserve_transformer.settings import Settings
from tests.unit.unsaved import BINARY, MODEL, REGRESSION, REGRESSOR, SPECS, bundle_of

RECORDS = [
    {"amount": 5, "country": "DE", "opened": "2024-01-01T07:30:00Z"},
    {"amount": 7.5, "opened": "2024-01-01T08:30:00Z"},
]
OUTPUTS = {
    "predict": np.array([1, 0]),
    "predict_proba": np.array([[0.25, 0.75], [0.75, 0.25]], np.float32),
    "margin": np.array([1.0, -1.0], np.float32),
    "contributions": np.array([[0.5, -0.25, 0.75, 0], [0.25, 0, -1, 0]], np.float32),
    "label": np.array(["fraud", "accept"], object),
}


class StandIn:
    """A predictor with fixed answers, which remembers what it was asked."""

    ready = True

    def __init__(self, outputs: dict[str, Array]) -> None:
        self._outputs = outputs
        self.requests: list[InferRequest] = []

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        self.requests.append(request)
        datatypes = {"predict": "INT64", "label": "BYTES"}
        return InferResponse(
            tuple(Tensor(o.name, datatypes.get(o.name, "FP32"), self._outputs[o.name]) for o in request.outputs)
        )

    @property
    def inputs(self) -> dict[str, Tensor]:
        """The inputs of the only request."""
        (request,) = self.requests
        return {tensor.name: tensor for tensor in request.inputs}

    @property
    def asked(self) -> list[str]:
        """The outputs of the only request."""
        (request,) = self.requests
        return [output.name for output in request.outputs]


class Refusing(StandIn):
    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        raise Overloaded("too many requests at once")


def served(
    bundle: Bundle, predictor: StandIn, preprocess: Any = None, metrics: Metrics | None = None, **settings: Any
) -> Transformer:
    return Transformer(
        bundle, predictor, Settings(predictor_host="localhost", **settings), metrics or Metrics(), preprocess
    )


def predictions(model: Transformer, *records: Any, context: Context | None = None) -> Any:
    body = orjson.dumps({"instances": records})
    return orjson.loads(asyncio.run(model.predict(body, context or Context())))["predictions"]


def infer(model: Transformer, inputs: list[Tensor], *outputs: str) -> dict[str, Tensor]:
    request = InferRequest(tuple(inputs), outputs=tuple(RequestedOutput(name) for name in outputs))
    response = asyncio.run(model.infer(request, Context()))
    assert len({tensor.name for tensor in response.outputs}) == len(response.outputs)
    return {tensor.name: tensor for tensor in response.outputs}


def texts(*values: str) -> Array:
    return np.array([value.encode() for value in values], object)


def columns() -> list[Tensor]:
    return [
        Tensor("amount", "FP64", np.array([5, 7.5])),
        Tensor("country", "BYTES", texts("DE", "")),
        Tensor("opened", "BYTES", texts("2024-01-01T07:30:00Z", "2024-01-01T08:30:00Z")),
    ]


MATRIX = np.array([[5, 1, 7], [7.5, np.nan, 8]], np.float32)


def test_records_become_the_models_matrix_and_its_answers_decisions() -> None:
    predictor = StandIn(OUTPUTS)
    context = Context()
    made = predictions(served(bundle_of(BINARY, MODEL), predictor), *RECORDS, context=context)
    assert made == [
        {"decision": "review", "score": 0.75, "label": "fraud", "reasons": ["hour", "unusual amount"]},
        {"decision": "accept", "score": 0.25, "label": "accept", "reasons": ["unusual amount"]},
    ]
    matrix = predictor.inputs["input-0"]
    assert matrix.datatype == "FP32"
    np.testing.assert_array_equal(matrix.array, MATRIX)
    assert predictor.asked == ["predict_proba", "contributions"]
    assert context.response_headers == {"tabserve-predictor-release": "sha256:7"}


def test_columns_of_records_become_the_same_matrix() -> None:
    predictor = StandIn(OUTPUTS)
    made = infer(served(bundle_of(BINARY, MODEL), predictor), columns())
    np.testing.assert_array_equal(predictor.inputs["input-0"].array, MATRIX)
    assert {name: (tensor.datatype, tensor.array.shape) for name, tensor in made.items()} == {
        "predict_proba": ("FP32", (2, 2)),
        "decision": ("BYTES", (2,)),
        "score": ("FP64", (2,)),
        "reasons": ("BYTES", (2, 2)),
    }
    assert made["reasons"].array.tolist() == [["hour", "unusual amount"], ["unusual amount", ""]]


def test_what_metadata_declares_is_what_is_answered() -> None:
    model = served(bundle_of(BINARY, MODEL), StandIn(OUTPUTS), model_name="mine")
    metadata = model.metadata
    assert (metadata.name, metadata.versions, metadata.platform) == ("mine", ("3",), "xgboost_ubj")
    assert [spec.name for spec in metadata.inputs] == ["amount", "country", "opened"]
    made = infer(model, columns())
    assert {spec.name: spec.datatype for spec in metadata.outputs} == {
        name: tensor.datatype for name, tensor in made.items()
    }
    optional = orjson.loads(metadata.properties["optional_outputs"])
    assert [spec["name"] for spec in optional] == ["predict", "margin", "contributions", "label"]
    assert {spec["name"]: spec["datatype"] for spec in optional} == {
        name: tensor.datatype for name, tensor in infer(model, columns(), *(spec["name"] for spec in optional)).items()
    }


def test_plain_tensors_go_through_untouched_and_are_decided() -> None:
    predictor = StandIn(OUTPUTS)
    plain = Tensor("input-0", "FP64", np.arange(6.0).reshape(2, 3))
    made = infer(served(bundle_of(BINARY, MODEL), predictor), [plain])
    assert predictor.inputs == {"input-0": plain}
    assert made["decision"].array.tolist() == ["review", "accept"]


def test_the_models_feature_columns_go_through_untouched() -> None:
    predictor = StandIn(OUTPUTS)
    plain = [
        Tensor("amount", "FP64", np.array([-5.0])),
        Tensor("country", "BYTES", texts("DE")),
        Tensor("hour", "FP64", np.array([7.0])),
    ]
    infer(served(bundle_of(BINARY, MODEL), predictor), plain, "predict_proba")
    assert list(predictor.inputs.values()) == plain


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [
        (["decision"], ["predict_proba"]),
        (["score", "label"], ["label", "predict_proba"]),
        (["reasons"], ["predict_proba", "contributions"]),
        (["predict", "margin"], ["predict", "margin"]),
        (["decision", "predict_proba", "decision"], ["predict_proba"]),
    ],
)
def test_the_predictor_is_asked_for_what_is_needed_and_the_answer_is_what_was_wanted(
    wanted: list[str], asked: list[str]
) -> None:
    predictor = StandIn(OUTPUTS)
    made = infer(served(bundle_of(BINARY, MODEL), predictor), columns(), *wanted)
    assert list(made) == list(dict.fromkeys(wanted))
    assert predictor.asked == asked


class Partial(StandIn):
    """Answers by the first feature of a row."""

    async def infer(self, request: InferRequest, context: Context) -> InferResponse:
        whole = await super().infer(request, context)
        at = [MATRIX[:, 0].tolist().index(value) for value in request.inputs[0].array[:, 0].tolist()]
        return InferResponse(tuple(Tensor(each.name, each.datatype, each.array[at]) for each in whole.outputs))

    @property
    def asked_by_row(self) -> list[tuple[list[str], int]]:
        return [([output.name for output in each.outputs], len(each.inputs[0].array)) for each in self.requests]


SOME = BINARY.replace("{top: 2,", "{top: 2, for: [review],")
FOR_ALL = BINARY.replace("{top: 2,", "{top: 2, for: [review, accept],")
FOR_NONE = BINARY.replace("{from: 0.5, label: review}", "{from: 0.9, label: block}, {from: 0.1, label: review}")
FOR_NONE = FOR_NONE.replace("{top: 2,", "{top: 2, for: [block],")


@pytest.mark.parametrize(
    ("schema", "asked", "reasons"),
    [
        (SOME, [(["predict_proba"], 2), (["contributions"], 1)], [["hour", "unusual amount"], []]),
        (FOR_ALL, [(["predict_proba"], 2), (["contributions"], 2)], [["hour", "unusual amount"], ["unusual amount"]]),
        (FOR_NONE, [(["predict_proba"], 2)], [[], []]),
    ],
)
def test_contributions_are_asked_for_where_a_rows_band_has_reasons(
    schema: str, asked: list[tuple[list[str], int]], reasons: list[list[str]]
) -> None:
    predictor = Partial(OUTPUTS)
    made = predictions(served(bundle_of(schema, MODEL), predictor), *RECORDS)
    assert predictor.asked_by_row == asked
    assert [each["reasons"] for each in made] == reasons


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [
        ([], [(["predict_proba"], 2), (["contributions"], 1)]),
        (["reasons"], [(["predict_proba"], 2), (["contributions"], 1)]),
        (["decision"], [(["predict_proba"], 2)]),
        (["contributions", "reasons"], [(["contributions", "predict_proba"], 2)]),
    ],
)
def test_columns_get_padded_reasons_where_their_band_has_none(
    wanted: list[str], asked: list[tuple[list[str], int]]
) -> None:
    predictor = Partial(OUTPUTS)
    made = infer(served(bundle_of(SOME, MODEL), predictor), columns(), *wanted)
    assert predictor.asked_by_row == asked
    told = [tensor.array.tolist() for name, tensor in made.items() if name == "reasons"]
    assert told in ([], [[["hour", "unusual amount"], ["", ""]]])
    assert ("reasons" in made) == (wanted != ["decision"])


def test_metadata_name_the_bands_that_have_reasons() -> None:
    properties = [served(bundle_of(text, MODEL), StandIn(OUTPUTS)).metadata.properties for text in (SOME, BINARY)]
    assert [each.get("reasons_for") for each in properties] == ['["review"]', None]


def test_an_unknown_output_names_the_nearest() -> None:
    with pytest.raises(InvalidRequest, match=r'got "decison" \(did you mean `decision`\?\)'):
        infer(served(bundle_of(BINARY, MODEL), StandIn(OUTPUTS)), columns(), "decison")


def test_wrong_columns_are_named_as_record_fields() -> None:
    model = served(bundle_of(BINARY, MODEL), StandIn(OUTPUTS))
    with pytest.raises(InvalidRequest, match=r"unknown input `amout` \(did you mean `amount`\?\)"):
        infer(model, [Tensor("amout", "FP64", np.array([5.0]))])


@pytest.mark.parametrize("by", ["records", "columns"])
def test_too_many_records_are_refused_before_the_predictor(by: str) -> None:
    predictor = StandIn(OUTPUTS)
    model = served(bundle_of(BINARY, MODEL), predictor, max_rows=1)
    with pytest.raises(RequestTooLarge, match="expected at most 1 records, got 2"):
        predictions(model, *RECORDS) if by == "records" else infer(model, columns())
    assert predictor.requests == []


def test_a_model_of_columns_gets_a_tensor_for_each_feature() -> None:
    predictor = StandIn(OUTPUTS)
    predictions(served(bundle_of(BINARY, msgspec.structs.replace(MODEL, input="columns")), predictor), *RECORDS)
    assert {name: tensor.datatype for name, tensor in predictor.inputs.items()} == {
        "amount": "FP64",
        "country": "BYTES",
        "hour": "FP64",
    }
    assert predictor.inputs["country"].array.tolist() == ["DE", ""]


def test_a_preprocessor_makes_the_matrix() -> None:
    seen: list[dict[str, Array]] = []

    def preprocess(features: dict[str, Array]) -> Array:
        seen.append(features)
        return np.ones((len(features["amount"]), 5))

    made = tuple(FeatureSpec(f"made_{i}", "number", (), "amount") for i in range(5))
    info = PreprocessorInfo("preprocessor.onnx", "onnx", SPECS)
    bundle = bundle_of(BINARY, msgspec.structs.replace(MODEL, features=made), info)
    predictor = StandIn(OUTPUTS | {"contributions": np.zeros((2, 6), np.float32)})
    predictions(served(bundle, predictor, preprocess), *RECORDS)
    assert list(seen[0]) == ["amount", "country", "hour"]
    assert predictor.inputs["input-0"].array.dtype == np.float32
    assert predictor.inputs["input-0"].array.shape == (2, 5)


@pytest.mark.parametrize("preprocess", [None, lambda features: np.ones((len(features["amount"]), 3))])
def test_no_records_are_no_predictions(preprocess: Any) -> None:
    predictor = StandIn({name: array[:0] for name, array in OUTPUTS.items()})
    assert predictions(served(bundle_of(BINARY, MODEL), predictor, preprocess)) == []
    assert predictor.inputs["input-0"].array.shape == (0, 3)


def test_a_regression_answers_a_score() -> None:
    predictor, metrics = StandIn({"predict": np.array([2.5], np.float32)}), Metrics()
    model = served(bundle_of(REGRESSION, REGRESSOR), predictor, metrics=metrics)
    assert predictions(model, {"size": 1}) == [{"score": 2.5}]
    assert [spec.name for spec in model.metadata.outputs] == ["predict", "score"]
    assert "tabserve_score" not in metrics.page().decode()  # its buckets are made for a probability


NUMBERS = """\
task: regression
record: [{name: size, type: number, min: 0, max: LIMIT}, {name: age, type: number, required: false, min: 0, max: 99}]
features: [FEATURES]
"""


@pytest.mark.parametrize("limit", ["100", "1.0e+300"])
@pytest.mark.parametrize("features", [("size", "age"), ("age", "size"), ("age",)])
def test_records_of_numbers_become_the_matrix_of_the_features(limit: str, features: tuple[str, ...]) -> None:
    specs = tuple(FeatureSpec(name, "number", (), name) for name in features)
    model = msgspec.structs.replace(REGRESSOR, features=specs)
    schema = NUMBERS.replace("LIMIT", limit).replace("FEATURES", ", ".join(features))
    predictor = StandIn({"predict": np.array([1, 2], np.float32)})
    records = {"size": [0.1, 100], "age": [None, 7]}
    predictions(served(bundle_of(schema, model), predictor), *({"size": 0.1}, {"size": 100, "age": 7}))
    got = predictor.inputs["input-0"].array
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, np.array([records[name] for name in features], np.float64).T.astype(np.float32))


def test_a_record_of_numbers_that_does_not_fit_is_named() -> None:
    schema = NUMBERS.replace("LIMIT", "100").replace("FEATURES", "size, age")
    model = msgspec.structs.replace(REGRESSOR, features=tuple(FeatureSpec(n, "number", (), n) for n in ("size", "age")))
    with pytest.raises(InvalidRequest, match=r"record 1, field `age`: expected a number from 0 to 99, got 100"):
        predictions(served(bundle_of(schema, model), StandIn({})), {"size": 1}, {"size": 2, "age": 100})


def test_the_release_is_the_setting_or_the_bundles_digest() -> None:
    bundle = bundle_of(BINARY, MODEL)
    assert served(bundle, StandIn(OUTPUTS)).headers == {"tabserve-transformer-release": "sha256:7"}
    assert served(bundle, StandIn(OUTPUTS), release="r1").headers == {"tabserve-transformer-release": "r1"}


def test_metrics_count_decisions_and_the_predictors_answers() -> None:
    metrics = Metrics()
    predictions(served(bundle_of(BINARY, MODEL), StandIn(OUTPUTS), metrics=metrics), *RECORDS)
    page = metrics.page().decode()
    assert 'tabserve_decisions_total{decision="review"} 1.0' in page
    assert 'tabserve_predictor_seconds_count{status="200"} 1.0' in page
    assert "tabserve_score_count 2.0" in page


def test_of_each_request_the_first_record_is_counted_by_the_arm_it_came_by() -> None:
    metrics = Metrics()
    model = served(bundle_of(BINARY, MODEL), StandIn(OUTPUTS), metrics=metrics)
    body = json.dumps({"instances": RECORDS}).encode()
    for arm in ("split", "split", "shadow"):
        asyncio.run(model.predict(body, Context(arm=arm)))
    page = metrics.page().decode()
    counts = [line for line in page.splitlines() if line.startswith("tabserve_first_decision_total{")]
    assert counts == [
        'tabserve_first_decision_total{arm="split",decision="accept"} 0.0',
        'tabserve_first_decision_total{arm="split",decision="review"} 2.0',
        'tabserve_first_decision_total{arm="shadow",decision="review"} 1.0',
    ]
    assert 'tabserve_first_score_count{arm="split"} 2.0' in page


def test_the_predictors_errors_are_the_transformers() -> None:
    metrics = Metrics()
    model = served(bundle_of(BINARY, MODEL), Refusing(OUTPUTS), metrics=metrics)
    context = Context()
    with pytest.raises(Overloaded, match="too many requests"):
        predictions(model, *RECORDS, context=context)
    assert context.response_headers == {}
    assert 'tabserve_predictor_seconds_count{status="503"} 1.0' in metrics.page().decode()
