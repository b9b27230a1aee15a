"""The services that bad input is sent to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pytest

from tests.contract.payload import Payload
from tests.contract.target import Target
from tests.serving import Service


@dataclass
class Subject:
    """A service under test and its client; `read` is how much of its log was looked at."""

    service: Service
    read: int = 0

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
        self.assert_no_stack_trace()

    def assert_no_stack_trace(self) -> None:
        """It has logged no stack trace since this was asked last."""
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
    """Valid inputs of the predictor, which the transformer hands on untouched."""
    return Subject(predictor).payload
