"""What `helm test` runs in its pod, run here against both services of a small bundle."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tabserve import train
from tests.chart.helm import CHART
from tests.serving import ROOT, Service, running

SCHEMA = """\
task: binary
record:
  - {name: amount, type: number, min: 0}
  - {name: age, type: number, min: 0}
features: [amount, age]
outputs:
  classes: [small, large]
  decision: {score: large, bands: [{from: 0.5, label: review}, {from: 0, label: accept}]}
"""
OVER_BOTH = ["ready", "metadata", "V2 {}", "a bad request is a 400"]
OVER_GRPC = ["gRPC metadata", "gRPC {}", "a bad request is INVALID_ARGUMENT"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model whose records are its features, as a pickle: the check loads no model."""
    folder = tmp_path_factory.mktemp("checked")
    (folder / "schema.yaml").write_text(SCHEMA)
    values = np.random.default_rng(3).uniform(0, 9, (200, 2))
    model = LogisticRegression().fit(values, values[:, 0] > values[:, 1])
    sample = {"amount": values[:, 0].tolist(), "age": values[:, 1].tolist()}
    pickled: dict[str, Any] = {"format": "joblib", "allow_joblib": True}
    written = folder / "schema.yaml"
    train.save(model, folder / "bundle", name="fraud", version="1", schema=written, sample=sample, **pickled)
    return folder / "bundle"


@pytest.fixture(scope="module")
def services(bundle: Path, logs: Path) -> Generator[dict[str, Service]]:
    """Predictor and transformer."""
    options = [f"--model_dir={bundle}", "--allow_joblib=true"]
    with running("tabserve_predictor", *options, log=logs / "checked_predictor.log") as predictor:
        options = [f"--model_dir={bundle}", f"--predictor_host=127.0.0.1:{predictor.http_port}"]
        with running("tabserve_transformer", *options, log=logs / "checked_transformer.log") as transformer:
            yield {"predictor": predictor, "transformer": transformer}


def checked(bundle: Path, entry: str, service: Service, model: str = "fraud") -> tuple[int, list[str]]:
    """The check's exit status, and the lines it printed."""
    asked = {"ENTRY": entry, "MODEL": model, "REST": service.url.removeprefix("http://"), "GRPC": service.grpc}
    done = subprocess.run(
        [sys.executable, CHART / "files" / "check.py"],
        env={**os.environ, **asked, "SECONDS_TO_WAIT": "10", "BUNDLE": str(bundle), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, [line.strip() for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("entry", "output", "more"), [("predictor", "predict", []), ("transformer", "decision", ["V1 decision"])]
)
def test_a_release_that_answers_as_it_should_passes(
    bundle: Path, services: dict[str, Service], entry: str, output: str, more: list[str]
) -> None:
    wanted = [*OVER_BOTH, *more, *OVER_GRPC]

    assert checked(bundle, entry, services[entry]) == (0, [f"ok   {line.format(output)}" for line in wanted])


def test_another_model_fails_by_name(bundle: Path, services: dict[str, Service]) -> None:
    code, lines = checked(bundle, "transformer", services["transformer"], model="other")

    assert code == 1
    assert lines[0] == "ok   ready"
    assert lines[1].startswith("FAIL metadata")
