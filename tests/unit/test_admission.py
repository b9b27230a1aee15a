"""The queue for places: as long as its requests are likely to be answered soon."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from tabserve.inference import admission
from tabserve.inference.admission import (
    FEWEST_PLACES,
    FRESH_SECONDS,
    PATIENCE_SECONDS,
    PLACED_SECONDS,
    REFUSALS_PER_SECOND,
    Admission,
)
from tabserve.inference.errors import Overloaded
from tabserve.inference.metrics import Metrics

STEP = 0.125


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Request:
    """A request that takes its place as soon as it is resumed."""

    def __init__(self, places: Admission) -> None:
        self._places = places
        self.placed = False

    def resume(self, waited: float) -> None:
        self._places.enter("rest")
        self.placed = True


class Read:
    """A request that needs no place."""

    waited: float | None = None

    def resume(self, waited: float) -> None:
        self.waited = waited


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(admission, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def waiting(places: Admission, most: int = 100) -> int:
    """How many requests join the queue before one is turned away."""
    for count in range(most):
        if not places.wait(Request(places)):
            return count
    return most


async def answered(places: Admission, clock: Clock) -> None:
    """A request leaves its place after a step of time."""
    clock.now += STEP
    places.leave()
    await asyncio.sleep(0)  # until the one that waits has the place


async def moved(clock: Clock) -> Admission:
    """One place, which after a step of time went to a request that had waited for it."""
    places = Admission(1, Metrics())
    places.enter("rest")
    places.wait(Request(places))
    await answered(places, clock)
    return places


def test_the_queue_is_as_long_as_its_pace_allows(clock: Clock) -> None:
    async def test() -> None:
        places = await moved(clock)
        # One is in its place; with every further one it takes a step more.
        assert waiting(places) == int(PATIENCE_SECONDS / STEP) - 1

    asyncio.run(test())


def test_requests_are_turned_away_behind_one_that_waited_too_long(clock: Clock) -> None:
    places = Admission(1, Metrics())
    places.enter("rest")
    assert waiting(places, most=3) == 3
    clock.now += PATIENCE_SECONDS - 0.01
    assert places.wait(Request(places))
    clock.now += 0.02
    assert not places.wait(Request(places))


@pytest.mark.parametrize(("waited", "order"), [(FRESH_SECONDS / 2, [2, 1, 0]), (2 * FRESH_SECONDS, [0, 1, 2])])
def test_the_newest_goes_first_until_the_oldest_is_no_longer_fresh(
    clock: Clock, waited: float, order: list[int]
) -> None:
    async def test() -> list[int]:
        places = Admission(1, Metrics())
        places.enter("rest")
        requests = [Request(places) for _ in order]
        for request in requests:
            places.wait(request)
        clock.now += waited
        placed: list[int] = []
        for _ in order:
            places.leave()
            await asyncio.sleep(0)
            placed += [i for i, request in enumerate(requests) if request.placed and i not in placed]
        return placed

    assert asyncio.run(test()) == order


def slow(clock: Clock, pace: float) -> Admission:
    """Of 256 places 200 taken, by requests that were answered, and replaced, at this pace for a while."""
    places = Admission(256, Metrics())
    for _ in range(200):
        places.enter("grpc")
    for _ in range(100):
        clock.now += pace
        places.leave()
        places.enter("rest", promised=True)
    return places


def entered(places: Admission, most: int = 300) -> int:
    """How many requests take a place before one is refused."""
    for count in range(most):
        if places.full:
            return count
        places.enter("grpc")
    return most


@pytest.mark.parametrize(
    ("pace", "number"),
    [(PLACED_SECONDS / 300, 256), (PLACED_SECONDS / 100.5, 100), (PLACED_SECONDS, FEWEST_PLACES)],
    ids=["fast", "slow", "slowest"],
)
def test_there_are_as_many_places_as_are_answered_soon(clock: Clock, pace: float, number: int) -> None:
    places = slow(clock, pace)
    for _ in range(200 - FEWEST_PLACES):
        clock.now += pace
        places.leave()
    assert FEWEST_PLACES + entered(places) == number
    with pytest.raises(Overloaded):
        places.enter("grpc")


def test_a_request_that_was_read_because_there_was_a_place_gets_one(clock: Clock) -> None:
    places = slow(clock, PLACED_SECONDS)
    assert places.full
    for _ in range(256 - 200):
        places.enter("rest", promised=True)
    with pytest.raises(Overloaded):
        places.enter("rest", promised=True)


def test_where_few_requests_are_left_all_places_are_there_again(clock: Clock) -> None:
    places = slow(clock, PLACED_SECONDS)
    for _ in range(200 - FEWEST_PLACES + 1):
        places.leave()
    assert FEWEST_PLACES - 1 + entered(places) == 256


def test_the_pace_is_forgotten_with_the_queue(clock: Clock) -> None:
    async def test() -> None:
        places = await moved(clock)
        await answered(places, clock)
        places.enter("rest")
        assert waiting(places) == 100

    asyncio.run(test())


def test_past_a_second_of_refusals_requests_wait_until_they_are_paid_for(clock: Clock) -> None:
    places = Admission(1, Metrics())
    places.enter("rest")
    places.wait(Request(places))
    clock.now += PATIENCE_SECONDS + 0.01
    for _ in range(REFUSALS_PER_SECOND):
        assert not places.wait(Request(places))
        places.count_refusal("rest")
    places.count_refusal("rest")
    assert places.wait(Request(places))
    clock.now += 0.5
    assert not places.wait(Request(places))


def test_a_request_that_waits_for_long_is_resumed_without_a_place(clock: Clock) -> None:
    places = Admission(2, Metrics())
    for _ in range(2):
        places.enter("rest")
    late = Read()
    places.wait(late)
    clock.now += 0.5
    places.wait(soon := Read())
    clock.now += 0.6
    places.resume_late()
    assert [late.waited, soon.waited] == [pytest.approx(1.1), None]


def test_one_that_gave_up_is_not_resumed(clock: Clock) -> None:
    async def test() -> None:
        places = Admission(1, Metrics())
        places.enter("rest")
        places.wait(gone := Read())
        places.forget(gone)
        await answered(places, clock)
        assert gone.waited is None

    asyncio.run(test())
