"""Our models answer the same under the stock kserve.ModelServer, and hooks that do not await work under both."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tabserve.inference.grpc import open_inference_pb2 as pb
from tabserve.inference.tensors import InferRequest, ModelMetadata, Tensor
from tabserve.kserve_adapter import kserve_request, our_request
from tests.docs.blocks import files
from tests.serving import ROOT, Service, running, start

MODEL = "breast-cancer"
ROW = [25.38, 17.33, 184.6, 2019.0, 0.1622, 0.6656, 0.7119, 0.2654, 0.4601, 0.1189]
FIELDS = ["radius", "texture", "perimeter", "area", "smoothness"]
FIELDS += ["compactness", "concavity", "concave_points", "symmetry", "fractal_dimension"]
RECORD = dict(zip(FIELDS, ROW, strict=True))


def v2(row: list[float], *outputs: str, datatype: str = "FP64") -> dict[str, Any]:
    tensor = {"name": "input-0", "datatype": datatype, "shape": [1, len(row)], "data": row}
    return {"id": "7", "inputs": [tensor], **({"outputs": [{"name": name} for name in outputs]} if outputs else {})}


def post(service: Service, path: str, body: object) -> tuple[int, dict[str, Any]]:
    connection = HTTPConnection("127.0.0.1", service.http_port, timeout=60)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    content: dict[str, Any] = json.loads(answer.read())
    connection.close()
    return answer.status, content


def outputs(service: Service, row: list[float], *names: str) -> dict[str, list[Any]]:
    status, content = post(service, f"/v2/models/{MODEL}/infer", v2(row, *names))
    assert status == 200, content
    assert (content["id"], content["model_name"]) == ("7", MODEL)
    return {output["name"]: output["data"] for output in content["outputs"]}


def infer(service: Service, row: list[float], content_types: Mapping[str, str] = {}) -> pb.ModelInferResponse:
    request = pb.ModelInferRequest(model_name=MODEL, id="7")
    tensor = request.inputs.add(name="input-0", datatype="FP64", shape=[1, len(row)])
    tensor.contents.fp64_contents.extend(row)
    places: dict[str, Any] = {"request": request, "input": tensor}
    for where, content_type in content_types.items():
        places[where].parameters["content_type"].string_param = content_type
    with grpc.insecure_channel(service.grpc) as channel:
        method = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        answer: pb.ModelInferResponse = method(request, timeout=60)
        return answer


def hooked(
    server: str, kind: str, bundle: Path, model_class: str, log: Path, *options: str
) -> AbstractContextManager[Service]:
    """A subclass of our models under either server."""
    module = f"tabserve_{kind}" if server == "tabserve" else "tests.kserve.stock"
    return running(module, f"--model_dir={bundle}", f"--model_class={model_class}", *options, log=log)


@pytest.fixture(scope="module")
def stock_predictor(bundle: Path, logs: Path) -> Generator[Service]:
    """The program of the page, with this bundle."""
    program = files((ROOT / "docs" / "serving.md").read_text())["stock.py"]
    assert '"bundle"' in program
    (logs / "stock.py").write_text(program.replace('"bundle"', repr(str(bundle))))
    path = {"PYTHONPATH": f"{ROOT}:{logs}"}
    service = start("stock", log=logs / "stock_predictor.log", environment=path)
    try:
        service.wait_for(lambda: service.status(f"/v2/models/{MODEL}/ready") == 200, "ready for its model")
        yield service
    finally:
        service.kill()


@pytest.fixture(scope="module")
def stock_transformer(bundle: Path, predictor: Service, logs: Path) -> Generator[Service]:
    host = f"--predictor_host=127.0.0.1:{predictor.http_port}"
    own = "tabserve_transformer.kserve_model:TransformerModel"
    with hooked("kserve", "transformer", bundle, own, logs / "stock_transformer.log", host) as service:
        service.wait_for(lambda: service.status(f"/v2/models/{MODEL}/ready") == 200, "in touch with its predictor")
        yield service


def test_the_stock_predictor_answers_the_same_over_rest(predictor: Service, stock_predictor: Service) -> None:
    names = ("predict", "predict_proba", "label", "margin", "contributions")

    assert outputs(stock_predictor, ROW) == outputs(predictor, ROW)
    assert outputs(stock_predictor, ROW, *names) == outputs(predictor, ROW, *names)


def test_the_stock_predictor_answers_the_same_over_grpc(predictor: Service, stock_predictor: Service) -> None:
    stock, ours = infer(stock_predictor, ROW), infer(predictor, ROW)

    assert [o.contents.fp64_contents for o in stock.outputs] == [o.contents.fp64_contents for o in ours.outputs]


def test_the_stock_predictor_says_what_answered_if_that_is_recorded(
    predictor: Service, stock_predictor: Service
) -> None:
    body = v2(ROW) | {"outputs": [{"name": "label"}], "parameters": {"recorded": "label"}}
    ours, stock = (post(each, f"/v2/models/{MODEL}/infer", body)[1] for each in (predictor, stock_predictor))

    assert sorted(ours["parameters"]) == ["engine", "versions"]
    assert stock["parameters"] == ours["parameters"]


def test_a_request_without_an_id_is_answered(stock_predictor: Service) -> None:
    body = v2(ROW)
    del body["id"]

    assert post(stock_predictor, f"/v2/models/{MODEL}/infer", body)[0] == 200


def test_the_stock_transformer_decides_the_same(transformer: Service, stock_transformer: Service) -> None:
    path, body = f"/v1/models/{MODEL}:predict", {"instances": [RECORD, RECORD]}

    assert post(stock_transformer, path, body) == post(transformer, path, body)
    assert outputs(stock_transformer, ROW) == outputs(transformer, ROW)


def test_bad_input_is_a_400_under_the_stock_server_too(predictor: Service, stock_predictor: Service) -> None:
    path, body = f"/v2/models/{MODEL}/infer", v2(ROW[:-1])

    assert post(stock_predictor, path, body) == post(predictor, path, body)
    assert post(stock_predictor, path, body)[0] == 400


def test_no_instances_have_no_predictions_under_the_stock_server_too(
    stock_predictor: Service, stock_transformer: Service
) -> None:
    path, none = f"/v1/models/{MODEL}:predict", {"instances": list[Any]()}

    assert post(stock_predictor, path, none) == (200, {"predictions": []})
    assert post(stock_transformer, path, none) == (200, {"predictions": []})


def test_no_rows_give_empty_outputs_under_the_stock_server_too(predictor: Service, stock_predictor: Service) -> None:
    tensor = {"name": "input-0", "datatype": "FP64", "shape": [0, len(ROW)], "data": list[float]()}
    answers = [
        post(one, f"/v2/models/{MODEL}/infer", {"id": "7", "inputs": [tensor]}) for one in (predictor, stock_predictor)
    ]

    assert [status for status, _ in answers] == [200, 200]
    assert [[one["shape"] for one in content["outputs"]] for _, content in answers] == [[[0, 2]]] * 2


@pytest.mark.parametrize("where", ["request", "input"])
def test_a_content_type_that_is_not_read_is_a_400_under_the_stock_server_too(
    predictor: Service, stock_predictor: Service, where: str
) -> None:
    path, body = f"/v2/models/{MODEL}/infer", v2(ROW)
    tagged = body if where == "request" else body["inputs"][0]
    refusals = []
    for service in (predictor, stock_predictor):
        tagged["parameters"] = {"content_type": "hf"}
        refusals.append(post(service, path, body))
        with pytest.raises(grpc.RpcError) as failure:
            infer(service, ROW, {where: "hf"})
        refusals.append((400, {"error": failure.value.details()}))
        assert failure.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        tagged["parameters"] = {"content_type": "np"}
        assert post(service, path, body)[0] == 200
        assert infer(service, ROW, {where: "np"}).outputs

    assert refusals == [refusals[0]] * 4
    assert refusals[0][0] == 400


@pytest.mark.parametrize("server", ["tabserve", "kserve"])
def test_a_predictor_s_synchronous_preprocess_works_over_v2_rest(
    server: str, predictor: Service, bundle: Path, logs: Path
) -> None:
    with hooked(server, "predictor", bundle, "tests.kserve.hooks:Halved", logs / f"halved_{server}.log") as halved:
        assert outputs(halved, ROW) == outputs(predictor, [value / 2 for value in ROW])
        assert outputs(halved, ROW, "label") == outputs(predictor, [value / 2 for value in ROW], "label")


@pytest.mark.parametrize("server", ["tabserve", "kserve"])
def test_a_transformer_s_synchronous_postprocess_works_over_v1(
    server: str, predictor: Service, bundle: Path, logs: Path
) -> None:
    host = f"--predictor_host=127.0.0.1:{predictor.http_port}"
    hooks, log = "tests.kserve.hooks:Shouting", logs / f"shouting_{server}.log"
    with hooked(server, "transformer", bundle, hooks, log, host) as shouting:
        shouting.wait_for(lambda: shouting.status(f"/v2/models/{MODEL}/ready") == 200, "in touch with its predictor")
        status, content = post(shouting, f"/v1/models/{MODEL}:predict", {"instances": [RECORD]})

    assert (status, content["predictions"][0]["decision"]) == (200, "REFER TODAY")


def test_hooks_keep_the_releases_in_the_answer_and_have_no_contract(
    predictor: Service, transformer: Service, bundle: Path, logs: Path
) -> None:
    host = f"--predictor_host=127.0.0.1:{predictor.http_port}"
    options = [f"--model_dir={bundle}", host, "--model_class=tests.kserve.hooks:Shouting"]
    with running("tabserve_transformer", *options, log=logs / "released.log") as service:
        connection = HTTPConnection("127.0.0.1", service.http_port, timeout=60)
        connection.request("POST", f"/v1/models/{MODEL}:predict", json.dumps({"instances": [RECORD]}))
        answer = connection.getresponse()
        answer.read()
        connection.close()
        schemas = json.loads(service.get(f"/v2/models/{MODEL}/schema")[1])

    assert [[*schema] for schema in schemas.values()] == [["$schema", "title"]] * 2
    release = answer.getheader("tabserve-predictor-release")
    assert release is not None
    assert answer.getheader("tabserve-transformer-release") == release


@pytest.mark.parametrize(
    "name",
    [
        "nowhere:Model",
        pytest.param("tests.kserve.hooks:None", marks=pytest.mark.long),
        pytest.param("tests.kserve.hooks", marks=pytest.mark.long),
        "json:JSONDecoder",
    ],
)
def test_a_model_class_that_is_none_ends_the_start(name: str, bundle: Path, tmp_path: Path) -> None:
    service = start("tabserve_predictor", f"--model_dir={bundle}", f"--model_class={name}", log=tmp_path / "log")
    assert service.process.wait(60) == 1
    assert "model_class: expected" in service.text()


def test_parameters_go_through_the_sdk() -> None:
    request = InferRequest((Tensor("x", "FP64", np.ones(1)),), parameters={"on_error": "record", "n": 2})
    through = our_request(kserve_request(request, ModelMetadata(MODEL, ("1",), "", (), ())))
    assert through.parameters == request.parameters
