"""The queue for places: first come, first served, and no longer than a request's patience."""

from __future__ import annotations

import asyncio

import pytest

from tabserve.inference.admission import PATIENCE_SECONDS, Admission
from tabserve.inference.errors import Overloaded
from tabserve.inference.metrics import Metrics


class Clock:
    """A clock whose seconds a test lets pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Request:
    """A request that takes its place as soon as it is resumed, and is refused if there is none."""

    waited: float | None = None
    refused = False

    def __init__(self, places: Admission) -> None:
        self._places = places

    def resume(self, waited: float) -> None:
        self.waited = waited
        try:
            self._places.enter("rest")
        except Overloaded:
            self.refused = True


class Read:
    """A request that needs no place."""

    waited: float | None = None

    def resume(self, waited: float) -> None:
        self.waited = waited


@pytest.fixture
def clock() -> Clock:
    return Clock()


def full(clock: Clock, places: int) -> Admission:
    """An admission with all its places taken."""
    admission = Admission(places, Metrics(), clock)
    for _ in range(places):
        admission.enter("rest")
    return admission


def waiting(admission: Admission, count: int) -> list[Request]:
    requests = [Request(admission) for _ in range(count)]
    for request in requests:
        admission.wait(request)
    return requests


async def leave(admission: Admission, times: int = 1) -> None:
    """Free `times` places, and let those that wait take them."""
    for _ in range(times):
        admission.leave()
    await asyncio.sleep(0)


def test_past_the_limit_there_is_no_place(clock: Clock) -> None:
    admission = full(clock, 3)
    assert admission.full
    with pytest.raises(Overloaded):
        admission.enter("grpc")
    admission.leave()
    admission.enter("grpc")
    assert admission.full


@pytest.mark.parametrize("free", [1, 2, 5])
async def test_the_first_that_came_get_the_places(clock: Clock, free: int) -> None:
    admission = full(clock, 5)
    requests = waiting(admission, 6)
    clock.now += PATIENCE_SECONDS / 2
    await leave(admission, free)
    assert [request.waited is not None for request in requests] == [True] * free + [False] * (6 - free)
    assert not any(request.refused for request in requests)
    assert requests[0].waited == pytest.approx(PATIENCE_SECONDS / 2)


def test_those_that_have_waited_too_long_are_refused_and_the_others_wait_on(clock: Clock) -> None:
    admission = full(clock, 1)
    late = waiting(admission, 3)
    clock.now += PATIENCE_SECONDS
    fresh = waiting(admission, 2)
    clock.now += 0.01
    admission.resume_late()
    assert [request.refused for request in late + fresh] == [True] * 3 + [False] * 2
    assert [request.waited for request in fresh] == [None] * 2


async def test_a_place_goes_to_one_that_has_waited_too_long_rather_than_to_a_newer_one(clock: Clock) -> None:
    admission = full(clock, 1)
    late = waiting(admission, 2)
    clock.now += PATIENCE_SECONDS
    fresh = waiting(admission, 1)
    clock.now += 0.01
    await leave(admission)
    assert [request.refused for request in late] == [False, True]
    assert fresh[0].waited is None


async def test_one_that_gave_up_is_not_resumed(clock: Clock) -> None:
    admission = full(clock, 1)
    admission.wait(gone := Read())
    admission.forget(gone)
    await leave(admission)
    assert gone.waited is None
    assert not admission.crowded


async def test_places_go_on_to_the_next_where_one_needs_none(clock: Clock) -> None:
    admission = full(clock, 1)
    reads = [Read() for _ in range(3)]
    for read in reads:
        admission.wait(read)
    (request,) = waiting(admission, 1)
    admission.leave()
    for _ in range(4):
        await asyncio.sleep(0)
    assert [read.waited for read in reads] == [0.0] * 3
    assert request.waited == 0.0
    assert not request.refused
