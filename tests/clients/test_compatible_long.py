"""Clients of KServe and MLServer get from compatible services what their own servers answer (make long-compatible).

The other servers, and MLServer's client, run in environments that benchmarks installs from its locks.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import environments
from tests.clients.moving import NAMES, moved
from tests.serving import ROOT, Service, free_port, running

pytestmark = pytest.mark.long
HERE = ROOT / "tests" / "clients"
COLUMNS = {"amount": [1.5, 2.0, -3.0, 7.0], "age": [1.0, 2.25, 3.0, 0.0], "income": [4.0, 1.0, 0.0, 2.0]}
RUNTIMES = {"sklearn": "SKLearnModel", "xgboost": "XGBoostModel", "lightgbm": "LightGBMModel"}
FAILS = {
    "kserve": {
        "sklearn-multiclass-texts": {"v2 matrix", "v2 matrix of FP32", "v2 binary matrix", "v2 frame"}
        | {"grpc matrix", "grpc raw matrix"}
    }
}
"""What the other server fails at with its own client, and we do not: KServe's encodes no texts over V2."""
IGNORED = {name: {"rest predict_proba", "rest both", "grpc both"} for name in NAMES if name.startswith("lightgbm")}
"""What MLServer's runtime of LightGBM does not heed: it gives `predict`, whatever outputs are asked for."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every model, as a file of its own and as a bundle."""
    root = tmp_path_factory.mktemp("moved")
    for name in NAMES:
        model = moved(name)
        (root / "models" / name).mkdir(parents=True)
        (root / name).mkdir()
        model.write(root / "models" / name)
        model.bundle(root / name)
    return root


@contextmanager
def serving(command: Sequence[str | Path], ports: Sequence[int], log: Path, **variables: str) -> Generator[Service]:
    """Another server, ready. ports: of REST, gRPC and metrics."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={"PATH": "/usr/bin:/bin", **variables})
    service = Service(process, ports[0], ports[1], ports[2], log)
    try:
        service.wait_for(lambda: all(service.status(f"/v2/models/{name}/ready") == 200 for name in NAMES), "ready")
        yield service
    finally:
        service.kill()


@contextmanager
def other(server: str, folder: Path) -> Generator[Service]:
    """The server of a value of `compatible`, with every model."""
    ports = [free_port(), free_port(), free_port()]
    if server == "mlserver":
        python = environments.python("mlserver")
        told = {"host": "127.0.0.1", "http_port": ports[0], "grpc_port": ports[1], "metrics_port": ports[2]}
        (folder / "models" / "settings.json").write_text(json.dumps({**told, "parallel_workers": 0}))
        for name in NAMES:
            library = name.split("-")[0]
            (file,) = (folder / "models" / name).glob("model.*")
            settings: dict[str, Any] = {"name": name, "implementation": f"mlserver_{library}.{RUNTIMES[library]}"}
            settings |= {"parameters": {"uri": f"./{file.name}"}}
            (folder / "models" / name / "model-settings.json").write_text(json.dumps(settings))
        command: list[str | Path] = [python.with_name("mlserver"), "start", folder / "models"]
    else:
        ports[2] = ports[0]
        command = [environments.python("kserve"), HERE / "stock_kserve.py", folder / "models", *map(str, ports[:2])]
    proba = str(server == "kserve-proba").lower()
    with serving(command, ports, folder / f"{server}.log", PREDICT_PROBA=proba) as service:
        yield service


def asked(server: str, service: Service, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the server's client gets from a service, by model and way."""
    project = "mlserver" if server == "mlserver" else "kserve"
    client: list[str | Path] = [environments.python(project), HERE / f"{project}_moved.py"]
    command: list[str | Path] = [*client, f"127.0.0.1:{service.http_port}", service.grpc, *names]
    done = subprocess.run(command, input=json.dumps(COLUMNS), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def ours(server: str, folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the client gets from a compatible predictor, and from a transformer in front of it."""
    options = [f"--model_dir={folder / name / 'bundle'}", f"--compatible={server}"]
    with running("tabserve_predictor", *options, log=folder / f"{name}.log") as predictor:
        options += [f"--predictor_host=127.0.0.1:{predictor.http_port}"]
        with running("tabserve_transformer", *options, log=folder / f"{name}-t.log") as transformer:
            first, second = (asked(server, service, [name])[name] for service in (predictor, transformer))
            return first, second


def documented(server: str) -> list[str]:
    """The server's metrics that the page names, except those of queues that it does not have here."""
    title = {"mlserver": "MLServer"}.get(server, "KServe")
    rows = re.findall(rf"^\| {title} \| (.*?) \|", (ROOT / "docs" / "migrate.md").read_text(), re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert len(names) >= 3
    return [name for name in names if not name.endswith("_queue")]


def assert_alike(found: Any, expected: Any, where: str) -> None:
    """Assert the same JSON, with numbers as near as engines agree."""
    if isinstance(expected, float):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=where)
    elif isinstance(expected, dict) and "refused" in expected:
        assert "refused" in found, where
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for name, value in expected.items():
            assert_alike(found[name], value, f"{where} {name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for one, value in zip(found, expected, strict=True):
            assert_alike(one, value, where)
    else:
        assert found == expected, where


@pytest.mark.parametrize("server", ["kserve", "kserve-proba", "mlserver"])
def test_clients_get_what_their_own_server_answers(server: str, folder: Path) -> None:
    with other(server, folder) as service:
        theirs = asked(server, service, NAMES)
        shown = service.metrics()
    assert [name for name in documented(server) if f"# TYPE {name} " not in shown] == []
    fails: Mapping[str, set[str]] = FAILS.get(server, {})
    for name in NAMES:
        expected = {way: answer for way, answer in theirs[name].items() if way not in IGNORED.get(name, ())}
        refused = {way for way, answer in expected.items() if "refused" in answer}
        for way in fails.get(name, ()):
            assert "refused" in expected.pop(way)
        for found in ours(server, folder, name):
            compared = {way: answer for way, answer in found.items() if way in expected}
            assert_alike(compared, expected, f"{server} {name}")
            assert all("refused" not in found[way] for way in fails.get(name, ()))
        print(f"{server}, {name}: {len(expected)} ways alike, {len(refused - fails.get(name, set()))} of them refused")
