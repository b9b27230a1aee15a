"""Clients and requests that are made from the contract: OpenAPI, the proto, and reflection (make long-contract)."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.clients.test_programs import MODEL, PROGRAMS, SERVICE, answered
from tests.contract.payload import Json
from tests.serving import ROOT, Service

pytestmark = pytest.mark.long
BIN = Path(sys.executable).parent
EXAMPLES = 40
CONFORMANCE = [
    *("not_a_server_error", "unsupported_method", "allow_header_conformance", "status_code_conformance"),
    *("content_type_conformance", "response_headers_conformance", "response_schema_conformance"),
]
ACCEPTANCE = ["positive_data_acceptance", "negative_data_rejection"]
IN_TIME = ["-H", "x-request-timeout-ms: 60000"]
"""Without it, some requests set deadlines that have passed at once, and their answer is a 504."""
ASK = """
import json, sys
from asked import Client
from asked.api.default import predict
from asked.models import PredictRequest, Record

request = PredictRequest(instances=[Record.from_dict(json.load(sys.stdin))])
answer = predict.sync(client=Client(base_url=sys.argv[1]), body=request)
print(json.dumps(answer.predictions[0].to_dict()))
"""


def run(*command: str | Path, folder: Path, seconds: float = 600, **environment: str) -> str:
    """What a command prints; fails with that if the command fails."""
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=seconds
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(params=["predictor", "transformer", "payments_predictor", "payments_transformer"])
def service(request: pytest.FixtureRequest) -> Service:
    """Both services, of a model on numbers and of one on categories and times."""
    found: Service = request.getfixturevalue(request.param)
    return found


def schemathesis(document: str | Path, folder: Path, checks: Sequence[str], *options: str) -> None:
    """Let schemathesis send requests made from a document, which finds nothing wrong by these checks.

    It adds no headers of its own to them, because a service ignores what it does not know.
    """
    (folder / "schemathesis.toml").write_text("[generation]\nallow-extra-parameters = false\n")
    sent = ["--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES), "--seed", "1", *options]
    command = ["run", document, "--checks", ",".join(checks), "--warnings", "off", *sent]
    told = run(BIN / "schemathesis", *command, folder=folder)
    print(told)
    assert "Test cases:" in told


def test_no_request_has_a_5xx_or_an_answer_outside_the_document(service: Service, tmp_path: Path) -> None:
    schemathesis(f"{service.url}/openapi.json", tmp_path, CONFORMANCE, *IN_TIME)

    assert service.status("/v2/health/ready") == 200


def test_a_body_of_v1_is_answered_if_and_only_if_it_fits_the_document(service: Service, tmp_path: Path) -> None:
    """Without `x-on-error`, by which bad records have a 200. Of V2 the document cannot say all that makes a tensor."""
    document = json.loads(service.get("/openapi.json")[1])
    ((path, operation),) = [one for one in document["paths"].items() if one[0].endswith(":predict")]
    document["paths"] = {path: {"post": operation["post"] | {"parameters": []}}}
    (tmp_path / "openapi.json").write_text(json.dumps(document))

    schemathesis(tmp_path / "openapi.json", tmp_path, ACCEPTANCE, "--url", service.url)


def test_a_python_client_from_the_document(
    transformer: Service, bundle: Path, tmp_path: Path, record: Json, decision: str
) -> None:
    (tmp_path / "openapi.json").write_text(run(BIN / "tabserve", "bundle", "openapi", bundle, folder=tmp_path))
    options = ["--path", "openapi.json", "--output-path", "asked", "--meta", "none"]
    run(BIN / "openapi-python-client", "generate", *options, folder=tmp_path, PATH=f"{BIN}:{os.environ['PATH']}")
    (tmp_path / "ask.py").write_text(ASK)

    assert answered([sys.executable, str(tmp_path / "ask.py"), transformer.url], record)["decision"] == decision


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the Go client, generated from the proto and built, and grpcurl."""
    if shutil.which("go") is None:
        pytest.skip("there is no go here")
    folder = tmp_path_factory.mktemp("go") / "ask"
    shutil.copytree(PROGRAMS / "go", folder)
    run("nice", "go", "build", "-o", "bin/", "tool", folder=folder, seconds=1800, CGO_ENABLED="0")
    at = "Mopen_inference.proto=example.org/ask/inference"
    plugins = [f"--plugin={folder}/bin/protoc-gen-go", f"--plugin={folder}/bin/protoc-gen-go-grpc"]
    options = [
        f"--{kind}_{option}"
        for kind in ("go", "go-grpc")
        for option in ("out=.", "opt=module=example.org/ask", f"opt={at}")
    ]
    protos = ROOT / "tabserve" / "inference" / "grpc"
    run(
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-I{protos}",
        *plugins,
        *options,
        "open_inference.proto",
        folder=folder,
    )
    run("nice", "go", "build", "-o", "bin/ask", ".", folder=folder, seconds=1800, CGO_ENABLED="0")
    return folder / "bin"


def test_a_go_client_from_the_proto(go: Path, transformer: Service, record: Json, decision: str) -> None:
    assert answered([str(go / "ask"), transformer.grpc], record) == {"decision": decision}


def test_grpcurl_by_reflection(go: Path, transformer: Service, record: Json, decision: str, tmp_path: Path) -> None:
    inputs = [
        {"name": name, "datatype": "FP64", "shape": [1], "contents": {"fp64_contents": [value]}}
        for name, value in record.items()
    ]
    request = json.dumps({"model_name": MODEL, "inputs": inputs, "outputs": [{"name": "decision"}]})
    grpcurl = str(go / "grpcurl")
    asked = [grpcurl, "-plaintext", "-d", request, transformer.grpc, f"{SERVICE}/ModelInfer"]
    answer = json.loads(run(*asked, folder=tmp_path))

    assert base64.b64decode(answer["outputs"][0]["contents"]["bytes_contents"][0]).decode() == decision
    assert SERVICE in run(grpcurl, "-plaintext", transformer.grpc, "list", folder=tmp_path)
