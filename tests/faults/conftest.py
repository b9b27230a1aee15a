"""The services that bad input is sent to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pytest

from tests.contract.payload import Payload
from tests.contract.target import Target
from tests.serving import Service


@dataclass(frozen=True)
class Subject:
    """A service under test and its client."""

    service: Service

    @cached_property
    def target(self) -> Target:
        """The service as its clients see it."""
        return Target(self.service.url, self.service.grpc, None, None)

    @cached_property
    def payload(self) -> Payload:
        """Valid inputs of its own kind."""
        return self.target.payload

    def assert_serves(self) -> None:
        """It still answers what is right, and its log has no stack trace."""
        assert self.target.infer(self.payload.json()).status == 200
        assert self.target.call("ModelInfer", self.payload.message(self.target.model)).outputs
        assert "Traceback" not in self.service.text()


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
    """Valid inputs of the predictor, which the transformer hands on untouched."""
    return Subject(predictor).payload
