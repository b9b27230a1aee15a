"""KServe's own clients read from compatible services what the model computes, and decisions stay as they are.

With `make long-compatible`, tests/clients/test_compatible_long.py compares them with the other servers.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tabserve.client import Client
from tabserve.inference.grpc import open_inference_pb2 as pb
from tests.contract.payload import Json
from tests.contract.target import Target
from tests.serving import ROOT, Service, running

MODEL = "breast-cancer"
COUNT = 4
Columns = Mapping[str, list[float]]


@pytest.fixture(scope="module")
def columns(transformer: Service) -> Columns:
    """Records of the example's bundle, by field."""
    document = json.loads(transformer.get(f"/v2/models/{MODEL}/schema")[1])
    ranges = document["record"]["properties"]
    return {
        name: [field["minimum"] + (field["maximum"] - field["minimum"]) * at / (2 * COUNT) for at in range(COUNT)]
        for name, field in ranges.items()
    }


@pytest.fixture(scope="module")
def compatible(bundle: Path, logs: Path) -> Generator[dict[str, Service]]:
    """A transformer as each server, in front of a predictor that is itself as one; that one too."""
    with running(
        "tabserve_predictor", f"--model_dir={bundle}", "--compatible=mlserver", log=logs / "as_mlserver.log"
    ) as predictor:
        options = [f"--model_dir={bundle}", f"--predictor_host=127.0.0.1:{predictor.http_port}"]
        with (
            running(
                "tabserve_transformer", *options, "--compatible=kserve", log=logs / "kserve_in_front.log"
            ) as as_kserve,
            running(
                "tabserve_transformer", *options, "--compatible=mlserver", log=logs / "mlserver_in_front.log"
            ) as as_mlserver,
        ):
            yield {"kserve": as_kserve, "mlserver": as_mlserver, "mlserver's predictor": predictor}


@pytest.fixture(scope="module")
def computed(predictor: Service, columns: Columns) -> dict[str, list[Any]]:
    """The model's own outputs, from a predictor that is as none."""
    target = Target(predictor.url, predictor.grpc, MODEL, None)
    tensor = {"name": "input-0", "datatype": "FP64", "shape": [COUNT, len(columns)], "data": rows(columns)}
    answer = target.infer({"inputs": [tensor], "outputs": [{"name": "predict"}, {"name": "predict_proba"}]})
    return {name: tensor.array.tolist() for name, tensor in answer.outputs().items()}


def rows(columns: Columns) -> list[list[float]]:
    return [list(row) for row in zip(*columns.values(), strict=True)]


def test_kserve_s_clients_read_the_class(
    compatible: dict[str, Service], columns: Columns, computed: dict[str, list[Any]]
) -> None:
    service = compatible["kserve"]
    client = [sys.executable, str(ROOT / "tests" / "clients" / "kserve_moved.py")]
    command = [*client, f"127.0.0.1:{service.http_port}", service.grpc, MODEL]
    done = subprocess.run(command, input=json.dumps(columns), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])[MODEL]

    classes = computed["predict"]
    v2: Any = {"model": MODEL, "id": "7", "outputs": [["output-0", "INT64", [COUNT], classes]]}
    matrices = ["v2 matrix", "v2 matrix of FP32", "v2 binary matrix", "v2 frame", "grpc matrix", "grpc raw matrix"]
    bodies = ["v1 instances", "v1 inputs", "v1 both", "v1 lists", "v1 keyed"]
    expected: dict[str, Any] = dict.fromkeys(matrices, v2) | {way: {"predictions": classes} for way in bodies}
    assert told == expected | {"ready": [True, True]}


@pytest.mark.parametrize("service", ["mlserver", "mlserver's predictor"])
def test_mlserver_s_clients_read_a_column_and_its_content_type(
    compatible: dict[str, Service], service: str, columns: Columns, computed: dict[str, list[Any]]
) -> None:
    found = compatible[service]
    target = Target(found.url, found.grpc, MODEL, None)
    flat = [value for row in rows(columns) for value in row]
    tensor: Json = {"name": "predict", "datatype": "FP32", "shape": [COUNT, len(columns)], "data": flat}
    tensor |= {"parameters": {"content_type": "np"}}
    request = pb.ModelInferRequest(model_name=MODEL, id="7")
    given = request.inputs.add(name="predict", datatype="FP64", shape=[COUNT, len(columns)])
    given.contents.fp64_contents.extend(flat)

    answer = target.post(f"/v2/models/{MODEL}/infer", {"inputs": [tensor], "parameters": {"content_type": "np"}}).json()
    (output,) = answer["outputs"]
    (typed,) = target.call("ModelInfer", request).outputs

    assert answer["id"]
    assert output == {
        **{"name": "predict", "datatype": "INT64", "parameters": {"content_type": "np"}, "shape": [COUNT, 1]},
        "data": computed["predict"],
    }
    assert (typed.name, list(typed.shape), typed.parameters["content_type"].string_param) == (
        "predict",
        [COUNT, 1],
        "np",
    )
    assert list(typed.contents.int64_contents) == computed["predict"]


@pytest.mark.parametrize("server", ["kserve", "mlserver"])
def test_records_get_the_same_decisions_as_without(
    compatible: dict[str, Service], transformer: Service, server: str, columns: Columns
) -> None:
    records = [dict(zip(columns, row, strict=True)) for row in rows(columns)]
    inputs = [{"name": name, "datatype": "FP64", "shape": [COUNT], "data": data} for name, data in columns.items()]
    body = {"inputs": inputs, "outputs": [{"name": "decision"}, {"name": "reasons"}]}
    found, plain = (Target(one.url, one.grpc, MODEL, None) for one in (compatible[server], transformer))

    for path, sent in ((f"/v1/models/{MODEL}:predict", {"instances": records}), (f"/v2/models/{MODEL}/infer", body)):
        decided = found.post(path, sent).json()
        decided.pop("id", None)
        assert decided == plain.post(path, sent).json()
    with Client(compatible[server].url) as own, Client(transformer.url) as same:
        assert own.decide(MODEL, records) == same.decide(MODEL, records)


def test_metrics_have_the_names_that_the_page_gives(compatible: dict[str, Service]) -> None:
    page = (ROOT / "docs" / "migrate.md").read_text().partition("## Metrics")[2]
    names = set(re.findall(r"`(tabserve_\w+)`", page))
    shown = "".join(service.metrics() for service in compatible.values())

    assert len(names) >= 9
    assert [name for name in sorted(names) if f"# TYPE {name} " not in shown] == []


def test_what_does_not_fit_is_refused_in_a_form_that_both_clients_read(
    compatible: dict[str, Service], columns: Columns
) -> None:
    tensor = {"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [1, 2]}
    for service in compatible.values():
        answer = Target(service.url, service.grpc, MODEL, None).post(f"/v2/models/{MODEL}/infer", {"inputs": [tensor]})
        assert answer.status == 400
        assert "expected shape" in answer.json()["error"]
