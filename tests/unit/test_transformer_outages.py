"""The transformer's log has each change of its predictor once."""

from __future__ import annotations

import logging
import time

import pytest

from tabserve.inference.logs import QUIET_SECONDS
from tabserve_transformer.predictor_client.address import Address, Endpoint
from tabserve_transformer.predictor_client.breaker import FAILURES_TO_OPEN
from tabserve_transformer.predictor_client.outages import Outages, Told


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
    """The events about all addresses together, without the prefix that they have in common."""
    events = [str(getattr(record, "event")) for record in log.records]  # noqa: B009
    return [event.removeprefix("predictor_") for event in events if event.startswith("predictor_")]


def fail(address: Address) -> None:
    for _ in range(FAILURES_TO_OPEN):
        address.breaker.failed(time.monotonic())


def test_each_change_is_told_once(address: Address, outages: Outages, caplog: pytest.LogCaptureFixture) -> None:
    for ready in (True, True, False, False, True):
        address.ready = ready
        outages.look([address], heard=0.0)

    assert told(caplog) == ["found", "gone", "back"]
    levels = [record.levelname for record in caplog.records if "the predictor at p:80" in record.getMessage()]
    assert levels == ["INFO", "WARNING", "INFO"]


def test_a_probe_that_came_too_late_is_no_outage_while_requests_are_answered(
    address: Address, outages: Outages, caplog: pytest.LogCaptureFixture
) -> None:
    address.ready = False
    outages.look([address], heard=time.monotonic())

    assert told(caplog) == ["found"]


def test_an_open_breaker_is_told_and_so_is_that_it_closed(
    address: Address, outages: Outages, caplog: pytest.LogCaptureFixture
) -> None:
    outages.look([address], heard=0.0)
    fail(address)
    for _ in range(2):
        outages.look([address], heard=0.0)
    address.breaker.succeeded()
    outages.look([address], heard=0.0)

    assert told(caplog) == ["found", "failing", "back"]


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

    assert told(caplog) == ["gone", "back"]


def test_a_predictor_of_another_release_is_none(
    address: Address, outages: Outages, caplog: pytest.LogCaptureFixture
) -> None:
    address.own = None
    outages.look([address], heard=0.0)
    address.own = False
    outages.look([address], heard=0.0)

    assert told(caplog) == ["gone", "missing"]


def of_address(log: pytest.LogCaptureFixture) -> list[str]:
    """The events about one address."""
    events = [str(getattr(record, "event")) for record in log.records]  # noqa: B009
    return [event for event in events if not event.startswith("predictor_")]


def test_an_address_is_told_with_what_is_the_matter(
    address: Address, outages: Outages, caplog: pytest.LogCaptureFixture
) -> None:
    outages.look([address], heard=0.0)
    address.ready = False
    for trouble in ("lost", "hung", "unready"):
        address.trouble = trouble
        for _ in range(2):
            outages.look([address], heard=0.0)

    assert of_address(caplog) == ["address_ready", "address_lost", "address_hung", "address_unready"]


def test_the_state_of_a_breaker_is_told(address: Address, outages: Outages, caplog: pytest.LogCaptureFixture) -> None:
    outages.look([address], heard=0.0)
    fail(address)
    outages.look([address], heard=0.0)
    address.breaker.succeeded()
    outages.look([address], heard=0.0)

    assert of_address(caplog) == ["address_ready", "breaker_open", "breaker_closed"]


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_state_that_changes_often_is_told_seldom_and_in_the_end_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    caplog.set_level(logging.INFO)
    state = Told("a:1", clock)
    for number in range(101):
        state.see("address_lost" if number % 2 else "address_ready")
    assert of_address(caplog) == ["address_ready", "address_lost"]

    clock.now += QUIET_SECONDS
    for _ in range(2):
        state.see("address_ready")
    assert of_address(caplog) == ["address_ready", "address_lost", "address_ready"]
    assert getattr(caplog.records[-1], "fields") == {"address": "a:1", "suppressed": 98}  # noqa: B009
