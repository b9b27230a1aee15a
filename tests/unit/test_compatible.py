"""A compatible model answers what the other server would compute from the same model; the rest is as without it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tabserve.bundle
from tabserve.arrays import Array
from tabserve.bundle import Bundle, BundleError
from tabserve.bundle.compatible import compatible
from tabserve.inference.errors import InvalidRequest, RequestTooLarge
from tabserve.inference.grpc import open_inference_pb2 as pb
from tabserve.inference.grpc.codec import decode_request
from tabserve.inference.metrics import Metrics
from tabserve.inference.model import NATIVE, Context, Model
from tabserve.inference.rest.codec import ResponseEncoder
from tabserve.inference.settings import Server
from tabserve.inference.tensors import InferRequest, InferResponse, RequestedOutput, Tensor
from tabserve_predictor.model import Predictor, load
from tabserve_predictor.settings import Settings
from tests.clients.moving import FEATURES, Moved, moved, rows
from tests.unit.bundles import saved

ASKED = rows()[:5]
MATRIX = Tensor("any-name", "FP64", ASKED.to_numpy())
MODELS = ["sklearn-multiclass-texts", "sklearn-regression", "xgboost-binary", "lightgbm-multiclass"]
MAX_ROWS = 50


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[Moved, Bundle, Predictor]]:
    """Models, their bundles, and their predictors."""
    found = {}
    for name in MODELS:
        model = moved(name)
        bundle = tabserve.bundle.load(model.bundle(tmp_path_factory.mktemp(name)).path)
        found[name] = model, bundle, load(bundle, Settings(threads=1, max_rows=MAX_ROWS), Metrics())
    return found


def as_kserve(model: Moved, *, proba: bool = False) -> Array:
    """What `predict` of sklearnserver, xgbserver or lgbserver computes."""
    if model.library == "xgboost":
        return np.asarray(model.model.get_booster().predict(xgboost.DMatrix(ASKED.to_numpy())))
    if model.library == "lightgbm":
        return np.asarray(model.model.booster_.predict(ASKED))
    has = proba and hasattr(model.model, "predict_proba")
    return np.asarray(model.model.predict_proba(ASKED) if has else model.model.predict(ASKED))


def as_mlserver(model: Moved) -> Array:
    """What MLServer's runtime computes, encoded by its NumpyCodec."""
    if model.library == "lightgbm":
        return as_kserve(model)
    return np.asarray(model.model.predict(ASKED if model.library == "sklearn" else ASKED.to_numpy()))[:, None]


async def infer(model: Model, *inputs: Tensor, outputs: tuple[str, ...] = (), **parameters: Any) -> InferResponse:
    asked = tuple(RequestedOutput(name) for name in outputs)
    return await model.infer(InferRequest(inputs or (MATRIX,), "7", asked, parameters), Context())


async def predict(model: Model, **body: Any) -> Any:
    return json.loads(await model.predict(json.dumps(body).encode(), Context()))


def assert_equal(tensor: Tensor, name: str, expected: Array) -> None:
    datatype = {"U": "BYTES", "i": "INT64"}.get(expected.dtype.kind, f"FP{8 * expected.itemsize}")
    assert (tensor.name, tensor.datatype, tensor.array.shape) == (name, datatype, expected.shape)
    if expected.dtype.kind == "U":
        assert tensor.array.tolist() == expected.tolist()
    else:
        np.testing.assert_allclose(tensor.array, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("server", ["kserve", "kserve-proba"])
async def test_as_kserve(bundles: Mapping[str, Any], name: str, server: Server) -> None:
    model, bundle, core = bundles[name]
    ours, expected = compatible(core, bundle, server), as_kserve(model, proba=server == "kserve-proba")
    columns = [Tensor(feature, "FP64", ASKED[feature].to_numpy()) for feature in FEATURES]

    for inputs in ([MATRIX], columns):
        (answer,) = (await infer(ours, *inputs)).outputs
        assert_equal(answer, "output-0", expected)
        assert answer.content_type == ""
    predictions = (await predict(ours, instances=ASKED.to_numpy().tolist()))["predictions"]
    assert predictions == answer.array.tolist()
    (spec,) = ours.metadata.outputs
    assert (spec.name, spec.datatype, spec.shape[1:]) == ("output-0", answer.datatype, expected.shape[1:])


@pytest.mark.parametrize("name", MODELS)
async def test_as_mlserver(bundles: Mapping[str, Any], name: str) -> None:
    model, bundle, core = bundles[name]
    ours, expected = compatible(core, bundle, "mlserver"), as_mlserver(model)

    (answer,) = (await infer(ours)).outputs

    assert_equal(answer, "predict", expected)
    assert answer.content_type == "np"
    (spec,) = ours.metadata.outputs
    assert (spec.name, spec.datatype, spec.shape) == ("predict", answer.datatype, (-1, *expected.shape[1:]))


async def test_mlserver_s_clients_ask_for_probabilities_by_name(bundles: Mapping[str, Any]) -> None:
    model, bundle, core = bundles["xgboost-binary"]
    names = ("predict_proba", "predict")

    answer = await infer(compatible(core, bundle, "mlserver"), outputs=names)

    assert [tensor.name for tensor in answer.outputs] == [*names]
    assert_equal(answer.outputs[0], "predict_proba", model.model.predict_proba(ASKED.to_numpy()))


def test_mlserver_s_client_sends_empty_contents_beside_raw_ones() -> None:
    message = pb.ModelInferRequest(raw_input_contents=[bytes(8)])
    tensor = message.inputs.add(name="x", datatype="FP64", shape=[1])
    tensor.contents.SetInParent()
    assert decode_request(message).inputs[0].array.tolist() == [0]
    tensor.contents.fp64_contents.append(1)
    with pytest.raises(InvalidRequest, match="expected either `contents` or raw_input_contents"):
        decode_request(message)


async def test_what_the_other_server_does_not_know_is_answered_as_without_it(bundles: Mapping[str, Any]) -> None:
    _, bundle, core = bundles["xgboost-binary"]
    plain = Tensor("input-0", "FP64", MATRIX.array)
    servers: tuple[Server, ...] = ("kserve", "mlserver")
    for server in servers:
        ours = compatible(core, bundle, server)
        mixed = await infer(ours, outputs=("label", "margin"))
        own = await infer(core, plain, outputs=("label", "margin"))
        asked_by_a_transformer = await infer(ours, plain, outputs=("predict",), **{NATIVE: True})
        assert [one.array.tolist() for one in mixed.outputs] == [one.array.tolist() for one in own.outputs]
        assert asked_by_a_transformer.outputs[0].array.shape == (5,)
    record = {"amount": 1.5, "age": 2, "income": 0}
    assert await predict(ours, instances=[record]) == await predict(core, instances=[record])
    assert await predict(ours, instances=[]) == {"predictions": []}
    assert compatible(core, bundle, "") is core


async def test_every_answer_has_an_id(bundles: Mapping[str, Any]) -> None:
    _, bundle, core = bundles["sklearn-regression"]
    ours = compatible(core, bundle, "kserve")
    without = InferRequest((MATRIX,))
    made = [(await ours.infer(without, Context())).id for _ in range(2)]

    assert (await infer(ours)).id == "7"
    assert all(made)
    assert made[0] != made[1]
    encoded = ResponseEncoder("m", "1").encode(without, InferResponse((), id=made[0])).body
    assert json.loads(encoded)["id"] == made[0]


BODIES: dict[str, dict[str, Any]] = {
    "inputs": {"inputs": ASKED.to_numpy().tolist()},
    "inputs before instances": {"inputs": ASKED.to_numpy().tolist(), "instances": [[0, 0, 0]]},
    "a table": {"instances": [ASKED.to_dict("list")]},
    "two tables": {"instances": [ASKED[:2].to_dict("list"), ASKED[2:].to_dict("list")]},
    "a table with keys": {
        "inputs": [{name: dict(enumerate(column)) for name, column in ASKED.to_dict("list").items()}]
    },
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_v1_bodies_of_kserve_s_servers(bundles: Mapping[str, Any], body: dict[str, Any]) -> None:
    model, bundle, core = bundles["lightgbm-multiclass"]

    predictions = (await predict(compatible(core, bundle, "kserve"), **body))["predictions"]

    np.testing.assert_allclose(predictions, as_kserve(model))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "neither": ({"rows": []}, "expected `instances` or `inputs`"),
    "short": ({"instances": [[1, 2]]}, "expected shape"),
    "unequal": ({"inputs": [{"amount": [1], "age": [1, 2], "income": [1]}]}, "instance 0, `age`: expected as many"),
    "other keys": ({"inputs": [{"amount": {"0": 1}, "age": {"1": 1}}]}, "instance 0, `age`: expected as many"),
    "no column": ({"instances": [{"amount": [1]}, {}]}, "instance 1: expected a column of each feature, got none"),
    "none": ({"inputs": [{"amount": []}]}, "instance 0, `amount`: expected as many values"),
    "a table without a column": ({"inputs": [{"amount": [1], "age": [1]}]}, "`income` is missing"),
}


@pytest.mark.parametrize(("body", "message"), REFUSED.values(), ids=REFUSED)
async def test_a_v1_body_that_does_not_fit_is_refused(
    bundles: Mapping[str, Any], body: dict[str, Any], message: str
) -> None:
    _, bundle, core = bundles["lightgbm-multiclass"]
    with pytest.raises(InvalidRequest, match=message):
        await predict(compatible(core, bundle, "kserve"), **body)


@pytest.mark.parametrize("instances", [[[1, 2, 3]] * 60, [{"amount": [1] * 60, "age": [1] * 60, "income": [1] * 60}]])
async def test_more_rows_than_there_may_be_are_refused(bundles: Mapping[str, Any], instances: Any) -> None:
    _, bundle, core = bundles["lightgbm-multiclass"]
    with pytest.raises(RequestTooLarge, match=f"at most {MAX_ROWS} rows, got 60"):
        await predict(compatible(core, bundle, "kserve"), instances=instances)


def test_a_model_that_gives_no_probabilities_can_only_be_as_mlserver_has_it(tmp_path: Path) -> None:
    bundle = saved(xgboost.XGBClassifier(n_estimators=2, objective="binary:logitraw"), tmp_path)
    core = load(bundle, Settings(threads=1), Metrics())

    with pytest.raises(BundleError, match="compatible: kserve answers what the model's own objective gives"):
        compatible(core, bundle, "kserve")
    assert compatible(core, bundle, "").metadata is core.metadata
    assert compatible(core, bundle, "mlserver").metadata.outputs[0].shape == (-1, 1)


def test_a_model_behind_a_preprocessor_is_refused(tmp_path: Path) -> None:
    bundle = saved(make_pipeline(StandardScaler(), xgboost.XGBClassifier(n_estimators=2)), tmp_path)
    core = load(bundle, Settings(threads=1), Metrics())

    with pytest.raises(BundleError, match="compatible: kserve would take what the preprocessor takes"):
        compatible(core, bundle, "kserve")
