"""Bundles of each task, served with a page, and the browser that looks at it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import IsolationForest

import tabserve.train
from tabserve.bundle import load
from tabserve.home import contents
from tabserve.home.boxes import Box
from tests.conftest import trained
from tests.serving import Service, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PUMP = """\
task: anomaly
record:
  - {name: temperature, type: number, min: -40, max: 200, unit: °C, description: of the bearing}
  - {name: vibration, type: number, min: 0, max: 100, unit: mm/s}
  - {name: pressure, type: number, min: 0, max: 400, unit: bar, description: behind the pump}
  - {name: current, type: number, min: 0, max: 500, unit: A}
  - {name: flow, type: number, min: 0, max: 2000, unit: l/min}
  - {name: running, type: boolean, use: audit, description: not seen by the model}
features: [temperature, vibration, pressure, current, flow]
outputs: {classes: [strange, usual]}
"""


def pump(folder: Path) -> Path:
    """The bundle of an outlier detector on readings of a pump."""
    random = np.random.default_rng(3)
    load = random.beta(5, 3, 600)
    readings = pd.DataFrame(
        {
            "temperature": (35 + 30 * load + random.normal(0, 2, 600)).round(1),
            "vibration": (1.5 + 2 * load + random.gamma(2, 0.2, 600)).round(2),
            "pressure": (80 + 90 * load + random.normal(0, 4, 600)).round(1),
            "current": (20 + 40 * load + random.normal(0, 1.5, 600)).round(1),
            "flow": (100 + 500 * load + random.normal(0, 12, 600)).round(0),
            "running": True,
        }
    )
    schema = folder / "pump.yaml"
    schema.write_text(PUMP)
    model = IsolationForest(n_estimators=60, contamination=0.03, random_state=0).fit(
        tabserve.train.features(schema, readings)
    )
    tabserve.train.save(model, folder / "pump", name="pump", version="3", schema=schema, sample=readings)
    return folder / "pump"


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle of each task."""
    folder = tmp_path_factory.mktemp("bundles")
    for example in ("breast_cancer", "payments", "wine", "diabetes"):
        trained(example, folder)
    pump(folder)
    return folder


@contextmanager
def served(bundle: Path, logs: Path) -> Generator[dict[str, Service]]:
    """Both services of a bundle, each with a page."""
    of_predictor = (f"--model_dir={bundle}", "--page=true")
    with running("tabserve_predictor", *of_predictor, log=logs / f"{bundle.name}-predictor.log") as predictor:
        host = f"--predictor_host=127.0.0.1:{predictor.http_port}"
        log = logs / f"{bundle.name}-transformer.log"
        with running("tabserve_transformer", *of_predictor, host, "--grpc_port=0", log=log) as transformer:
            predictor.wait_for(lambda: explains(predictor, bundle), "explaining")
            yield {"predictor": predictor, "transformer": transformer}


def explains(predictor: Service, bundle: Path) -> bool:
    """Whether the predictor gives contributions, if it can; the first take long on a busy machine."""
    found = load(bundle)
    inputs = [_tensor(box) for box in contents.of_predictor(found, "", "").boxes]
    body = {"inputs": inputs, "outputs": [{"name": name} for name in found.manifest.model.outputs]}
    with closing(HTTPConnection("127.0.0.1", predictor.http_port, timeout=60)) as connection:
        connection.request("POST", f"/v2/models/{found.manifest.name}/infer", json.dumps(body))
        return connection.getresponse().status == 200


def _tensor(box: Box) -> dict[str, Any]:
    """What is in a box, as an input of V2."""
    number = box.kind == "number"
    value = (float(box.value) if number else box.options[int(box.value)]) if box.value else None if number else ""
    return {"name": box.name, "datatype": "FP64" if number else "BYTES", "shape": [1], "data": [value]}


@pytest.fixture(scope="session")
def browser() -> Generator[Browser]:
    """Debian's Chromium."""
    from playwright.sync_api import sync_playwright  # only in the environment of `make long-page`

    program = shutil.which("chromium")
    assert program is not None, "no chromium; make long-page installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()
