"""The course of a gate: which ticks move the weight, which take the canary back, and which do nothing."""

from __future__ import annotations

import pytest

from tabserve.rollout.gate import LEAST_SECONDS, SETTLING_TICKS, Gate, begin, resumed
from tabserve.rollout.scrape import Tally
from tabserve.rollout.seen import Route
from tabserve.rollout.settings import Shadow
from tabserve.rollout.state import Slot, State, parse
from tests.unit.gates import SETTINGS, answered, at_step, drive, gate, pairs, pods, seen, settings

SHADOWED = Shadow(percent=10, pairs=300)
SETTLED = SETTLING_TICKS + 1


def kept(driven: Gate) -> Gate:
    """The gate that goes on from what this one kept."""
    state = resumed(SETTINGS, parse(driven.state.text(), "kept"))
    return Gate(SETTINGS, state)


def weights(state: State) -> list[tuple[str, int]]:
    return [(change.phase, change.weight) for change in state.changes]


def test_a_good_canary_goes_from_step_to_step_and_is_held_at_the_last() -> None:
    driven = gate()
    drive(driven, 5, lacking="predictor of slot b has 0 of 2 pods Ready")
    assert (driven.state.phase, driven.wanted()) == ("wait", None)
    assert driven.state.told == "Waiting for the canary: predictor of slot b has 0 of 2 pods Ready."
    for _ in range(6):
        drive(driven, 1000)

    steps = [("watch", 0), ("step", 5), ("step", 20), ("step", 50), ("held", 50)]
    assert weights(driven.state) == steps
    assert driven.wanted() == Route(50, 0)
    assert driven.ended() is None
    assert driven.state.told == "On: held at 50 %. Set traffic.stable to b to promote it."
    assert [step.weight for step in driven.state.counted] == [5, 20, 50]


def test_every_step_takes_its_time_and_proves_its_budgets_anew() -> None:
    driven = at_step(1)
    began = driven.state.seconds
    drive(driven, 1000, total=5000)

    assert (driven.state.step, driven.state.seconds - began >= LEAST_SECONDS) == (2, True)
    assert not driven.ledger.budgets["errors"].proven()


def test_ticks_after_a_change_of_the_weight_are_not_counted() -> None:
    driven = at_step(0)
    drive(driven, SETTLING_TICKS, canary=answered(50, errors=50))
    drive(driven, 3, canary=answered(50, errors=50), route=None)
    drive(driven, SETTLING_TICKS, canary=answered(50, errors=50))
    assert (driven.ledger.canary.requests, driven.ended()) == (0, None)
    drive(driven, 1, canary=answered(50, errors=50))

    assert driven.ended() == 1


@pytest.mark.parametrize("phase", ["step", "held"])
def test_a_canary_that_fails_is_taken_back(phase: str) -> None:
    driven = at_step(2)
    drive(driven, 1000 * (phase == "held"))
    assert driven.state.phase == phase
    drive(driven, 500, canary=answered(42, errors=4), stable=answered(42))

    assert (driven.state.phase, driven.wanted(), driven.ended()) == ("back", None, 1)
    assert driven.state.told.startswith("Back: failed requests: ")
    assert driven.notices[-1].reason == "RolloutBack"
    assert driven.notices[-1].warning


def test_both_failing_alike_goes_neither_on_nor_back() -> None:
    driven = at_step(1)
    drive(driven, 200, canary=answered(20, errors=1), stable=answered(80, errors=4))

    assert (driven.state.phase, driven.state.step) == ("step", 1)
    assert driven.state.told.endswith("Stable itself has 5.0% errors.")


def test_without_traffic_nothing_is_decided_and_that_is_told_once() -> None:
    driven = at_step(0)
    told = []
    for _ in range(200):
        driven.tick(seen(driven, total=0))
        told += driven.notices

    assert (driven.state.phase, driven.state.step) == ("step", 0)
    assert [notice.reason for notice in told] == ["NoTraffic"]
    drive(driven, 1000)
    assert driven.state.step == 1


def test_a_step_whose_budgets_are_proven_is_not_left_while_no_request_comes() -> None:
    driven = at_step(1)
    drive(driven, 8, total=5000)
    assert driven.ledger.verdict() == "on"
    drive(driven, 100, canary=Tally(), stable=Tally())
    assert (driven.state.step, driven.state.told.startswith("Not yet: the budgets are proven, and no")) == (1, True)
    drive(driven, 1)
    assert driven.state.step == 2


def test_a_rollout_that_proves_nothing_in_time_holds_the_last_step_that_was_left() -> None:
    driven = at_step(1, max_duration="1h")
    drive(driven, 1000, canary=answered(17), stable=answered(67, errors=1), lacking="transformer has 1 of 2 pods")

    assert (driven.state.phase, driven.wanted(), driven.ended()) == ("undecided", Route(5, 0), None)
    assert driven.state.told == "Undecided after 1h: transformer has 1 of 2 pods."
    drive(driven, 500, canary=answered(10, errors=5), stable=answered(90))
    assert driven.state.phase == "back"


@pytest.mark.parametrize("step", [0, 1])
def test_one_that_is_to_go_back_then_ends(step: int) -> None:
    driven = at_step(step, max_duration="1h", when_undecided="back")
    drive(driven, 1000, total=0)

    assert (driven.state.phase, driven.wanted(), driven.ended()) == ("undecided", None, 2)


def test_restarts_of_the_canary_alone_take_it_back() -> None:
    driven = at_step(0)
    drive(driven, SETTLED, pods=pods(canary=3, stable=1))
    drive(driven, 3, pods=pods(canary=4, stable=1))
    assert driven.state.phase == "step"
    both = kept(driven)
    drive(driven, 3, pods=pods(canary=5, stable=1))
    drive(both, 5, pods=pods(canary=5, stable=2))

    assert driven.state.told == "Back: the canary's containers were restarted 2 times, and stable's never."
    assert both.state.phase == "step"


def test_a_canary_without_a_pod_that_is_ready_is_taken_back() -> None:
    driven = at_step(0)
    drive(driven, SETTLED)
    drive(driven, 5, ready=(0, 0))
    drive(driven, 1, ready=(0, 2))
    drive(driven, 1, ready=(1, 2))
    assert driven.state.phase == "step"
    drive(driven, 2, ready=(0, 2))

    assert driven.state.told == "Back: the canary has no pod that is Ready."


def test_latencies_of_a_colder_canary_are_not_compared() -> None:
    slow = Tally(4, timed=4, slower=answered(4).slower + 4)
    cold, warm = at_step(0), at_step(0)
    drive(cold, 40, canary=slow, ready=(2, 2))
    drive(warm, 40, canary=slow, ready=(1, 10))

    assert (cold.state.phase, warm.state.phase) == ("step", "back")
    assert any("colder" in line for line in cold.state.not_judged)
    assert warm.state.told.startswith("Back: requests that took over")


def test_the_share_of_the_requests_is_judged_only_while_the_pods_are_steady() -> None:
    steady, disturbed = at_step(2), at_step(2)
    for driven in (steady, disturbed):
        drive(driven, SETTLED)
    drive(disturbed, 3, canary=answered(84), stable=answered(0), steady=False)
    drive(steady, 3, canary=answered(84), stable=answered(0))

    assert (disturbed.state.phase, disturbed.ledger.canary.requests > 3 * 84) == ("step", True)
    assert steady.state.phase == "back"
    assert "of the requests were answered by the canary, which gets 50 %" in steady.state.told


def test_at_100_percent_stable_answers_nothing_and_budgets_and_restarts_are_left() -> None:
    driven = at_step(1, steps=[50, 100])
    drive(driven, 8, canary=answered(84, errors=8), stable=answered(0))
    assert driven.state.phase == "step"
    assert any("no requests left" in line for line in driven.state.not_judged)
    drive(driven, 1000)

    assert (driven.state.phase, driven.wanted()) == ("held", Route(100, 0))


def test_orders_are_followed() -> None:
    held, stopped = at_step(0), at_step(0)
    drive(held, 300, order="hold")
    drive(stopped, 1, order="back")

    assert (held.state.phase, held.state.step, held.state.order) == ("step", 0, "hold")
    assert (stopped.state.phase, stopped.ended()) == ("back", 1)
    assert stopped.state.changes[-1].who == "tabserve rollout stop"


def test_the_shadow_comes_first_and_needs_its_pairs() -> None:
    driven = gate(shadow=SHADOWED)
    drive(driven, 1)
    drive(driven, 100)
    assert (driven.state.phase, driven.wanted()) == ("shadow", Route(0, 10))
    drive(driven, SETTLED, copies=pairs(100))
    assert driven.state.told == "Not yet: 100 of 300 pairs of answers have been compared."
    drive(driven, 1, copies=pairs(300, different=5))
    assert driven.state.phase == "shadow"
    drive(driven, 1, copies=pairs(900, different=5))

    assert (driven.state.phase, driven.wanted()) == ("step", Route(5, 10))


@pytest.mark.parametrize(
    ("copies", "told"),
    [
        (pairs(300, different=30), "Back: different answers: 30 of 300"),
        (pairs(300, canary_refused=20), "Back: refused requests by one slot alone: 20 of 300"),
    ],
)
def test_a_canary_that_answers_otherwise_never_gets_a_request(copies: object, told: str) -> None:
    driven = gate(shadow=SHADOWED)
    drive(driven, 1)
    drive(driven, 100)
    drive(driven, SETTLED, copies=copies)

    assert driven.state.told.startswith(told)
    assert weights(driven.state) == [("watch", 0), ("shadow", 0), ("back", 0)]


def test_a_canary_in_doubt_stays_in_the_shadow() -> None:
    driven = gate(shadow=SHADOWED)
    drive(driven, 1)
    drive(driven, 100)
    drive(driven, SETTLED + 5, copies=pairs(900, canary_refused=9))

    assert driven.state.phase == "shadow"
    assert driven.state.told == "Not yet: the canary may fail or refuse more copies than stable."


def test_pods_that_differ_are_found_while_stable_is_watched_and_discount_errors() -> None:
    driven = gate(calibrate="10m")
    drive(driven, 1)
    for burst in range(1000):
        drive(driven, 1, by_pod={"p": (10.0 * (burst % 12 < 6), 40.0), "q": (0.0, 44.0)})
        if driven.state.phase == "step":
            break
    drive(driven, SETTLED)
    found = kept(driven).ledger.dispersion

    assert found is not None
    assert found > 5


def course(driven: Gate, ticks: list[dict[str, object]], killed: int = -1) -> State:
    """The state after these ticks; the gate is killed after one of them, and what its next tick counts is lost."""
    for number, facts in enumerate(ticks):
        driven.tick(seen(driven, **facts))
        if number == killed:
            driven = kept(driven)
            driven.tick(seen(driven, canary=Tally(), stable=Tally(), route=None))
    return driven.state


def test_a_gate_that_is_killed_at_any_tick_comes_to_the_same_verdict() -> None:
    good: list[dict[str, object]] = [{}] * 160
    bad: list[dict[str, object]] = [{}] * 40 + [{"canary": answered(4, errors=1), "stable": answered(80)}] * 60
    for ticks in (good, bad):
        whole = course(gate(), ticks)
        for killed in range(0, 100, 9):
            assert course(gate(), ticks, killed).phase == whole.phase
    assert (course(gate(), good).phase, course(gate(), bad).phase) == ("held", "back")


def test_a_new_pod_begins_at_the_first_step_with_the_evidence_so_far() -> None:
    driven = at_step(2)
    drive(driven, 6, canary=answered(42, errors=1), stable=answered(42))
    next_one = kept(driven)
    next_one.again()

    assert (next_one.state.step, next_one.wanted()) == (0, Route(5, 0))
    assert next_one.ledger.judge.of("errors") == driven.ledger.judge.of("errors")
    assert next_one.ledger.canary.requests == driven.ledger.canary.requests


def test_a_release_that_was_taken_back_stays_so_whatever_the_settings_are() -> None:
    driven = at_step(0)
    drive(driven, 1, order="back")
    other = settings(steps=[1])

    assert resumed(other, driven.state).phase == "back"
    assert resumed(SETTINGS, at_step(1).state).step == 1
    assert resumed(SETTINGS, None).phase == "wait"


def test_another_release_or_other_settings_begin_anew() -> None:
    state = at_step(1).state
    state.job = "fraud-rollout-2"
    assert resumed(SETTINGS, state).step == -1
    state = at_step(1).state
    state.canary = Slot("b", "another")

    assert resumed(SETTINGS, state).step == -1
    assert begin(SETTINGS).canary.release == SETTINGS.canary.release
