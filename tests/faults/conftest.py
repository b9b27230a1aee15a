"""The services that bad input is sent to."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import xgboost
import yaml

from tabserve.train import save
from tests.contract.payload import Payload
from tests.contract.target import Target
from tests.serving import ROOT, Service, running


@dataclass
class Subject:
    """A service under test and its client; `read` is how much of its log has been read."""

    service: Service
    read: int = 0

    @cached_property
    def target(self) -> Target:
        """The service as a target for requests."""
        return Target(self.service.url, self.service.grpc, None, None)

    @cached_property
    def payload(self) -> Payload:
        """Valid inputs for the service."""
        return self.target.payload

    def assert_serves(self) -> None:
        """Assert that the service still answers right, and that its log has no stack trace."""
        assert self.target.infer(self.payload.json()).status == 200
        assert self.target.call("ModelInfer", self.payload.message(self.target.model)).outputs
        self.assert_no_stack_trace()

    def assert_no_stack_trace(self) -> None:
        """Assert that no stack trace was logged since the last time."""
        log = self.service.text()
        fresh, self.read = log[self.read :], len(log)
        assert "Traceback" not in fresh, fresh


@pytest.fixture(scope="session", params=["predictor", "transformer"])
def subject(request: pytest.FixtureRequest) -> Subject:
    """Both services, one after the other."""
    return Subject(request.getfixturevalue(request.param))


@pytest.fixture(scope="session")
def echoing(echo: Service) -> Subject:
    """The model that answers its inputs."""
    return Subject(echo)


@pytest.fixture(scope="session")
def matrix(predictor: Service) -> Payload:
    """Valid inputs for the predictor, which the transformer passes on unchanged."""
    return Subject(predictor).payload


@pytest.fixture(scope="session")
def quick_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small XGBoost model on the fields of examples/breast_cancer, whose services start fast."""
    return save_quick(tmp_path_factory.mktemp("quick") / "bundle")


def save_quick(folder: Path, seed: int = 1) -> Path:
    """Save such a model; another seed makes another one."""
    schema = ROOT / "examples/breast_cancer/schema.yaml"
    names = [str(field["name"]) for field in yaml.safe_load(schema.read_text())["record"]]
    values = np.random.default_rng(seed).random((200, len(names)))
    matrix = xgboost.DMatrix(values, values[:, 0] > values[:, 1], feature_names=names)
    model = xgboost.train({"objective": "binary:logistic", "max_depth": 3, "nthread": 1}, matrix, num_boost_round=5)
    sample = dict(zip(names, values.T.tolist(), strict=True))
    save(model, folder, name="quick", version="1", schema=schema, sample=sample, engine="xgboost")
    return folder


@pytest.fixture(scope="session")
def quick_predictor(quick_bundle: Path, logs: Path) -> Generator[Service]:
    """The quick bundle's predictor."""
    with running("tabserve_predictor", f"--model_dir={quick_bundle}", log=logs / "quick_predictor.log") as service:
        yield service
