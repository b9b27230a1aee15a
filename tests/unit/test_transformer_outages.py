"""The transformer's log has each change of its predictor once."""

from __future__ import annotations

import logging
import time

import pytest

from tabserve_transformer.predictor_client.address import Address, Endpoint
from tabserve_transformer.predictor_client.breaker import FAILURES_TO_OPEN
from tabserve_transformer.predictor_client.outages import Outages


@pytest.fixture
def address() -> Address:
    found = Address(Endpoint("127.0.0.1", 8080), 2**20)
    found.own = found.ready = True
    return found


@pytest.fixture
def outages(caplog: pytest.LogCaptureFixture) -> Outages:
    """Of a predictor at `p:80`; its log is kept from INFO on."""
    caplog.set_level(logging.INFO)
    return Outages("p:80")


def told(log: pytest.LogCaptureFixture) -> list[str]:
    """The first words of each line, after the predictor's name."""
    return [" ".join(record.getMessage().partition("p:80 ")[2].split()[:2]) for record in log.records]


def fail(address: Address) -> None:
    for _ in range(FAILURES_TO_OPEN):
        address.breaker.failed(time.monotonic())


def test_each_change_is_told_once(address: Address, outages: Outages, caplog: pytest.LogCaptureFixture) -> None:
    for ready in (True, True, False, False, True):
        address.ready = ready
        outages.look([address], heard=0.0)

    assert told(caplog) == ["answers", "does not", "answers"]
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "INFO"]


def test_a_probe_that_came_too_late_is_no_outage_while_requests_are_answered(
    address: Address, outages: Outages, caplog: pytest.LogCaptureFixture
) -> None:
    address.ready = False
    outages.look([address], heard=time.monotonic())

    assert told(caplog) == ["answers"]


def test_an_open_breaker_is_told_and_so_is_that_it_closed(
    address: Address, outages: Outages, caplog: pytest.LogCaptureFixture
) -> None:
    outages.look([address], heard=0.0)
    fail(address)
    for _ in range(2):
        outages.look([address], heard=0.0)
    address.breaker.succeeded()
    outages.look([address], heard=0.0)

    assert told(caplog) == ["answers", "fails in", "answers"]


def test_a_breaker_that_opened_before_the_predictor_was_back_says_nothing(
    address: Address, outages: Outages, caplog: pytest.LogCaptureFixture
) -> None:
    address.ready = False
    for _ in range(2):
        fail(address)
        outages.look([address], heard=0.0)
    fail(address)
    address.ready = True
    for _ in range(2):
        outages.look([address], heard=0.0)

    assert told(caplog) == ["does not", "answers"]


def test_a_predictor_of_another_release_is_none(
    address: Address, outages: Outages, caplog: pytest.LogCaptureFixture
) -> None:
    address.own = None
    outages.look([address], heard=0.0)
    address.own = False
    outages.look([address], heard=0.0)

    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "the predictor at p",
        "there is no predictor of this release at p",
    ]
