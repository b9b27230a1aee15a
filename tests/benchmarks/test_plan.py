from __future__ import annotations

import pytest

from benchmarks import environments, plan, roster
from benchmarks.plan import Plan, Step, Visit
from benchmarks.results import CLOSED, Cell
from benchmarks.targets import CHAINS, STOCK

VISITS = [visit for each in plan.PLANS.values() for visit in each.visits]
PORTS = {"http", "grpc", "admin", "inner_http", "inner_grpc", "inner_admin"}
WORDS = {"python", "peers", "bundle", "native", "answer", *PORTS}


@pytest.mark.parametrize("visit", VISITS, ids=lambda visit: f"{visit.peer.name}-{visit.model}")
def test_an_open_loop_follows_the_closed_one_it_is_a_multiple_of(visit: Visit) -> None:
    assert visit.steps[0].load == CLOSED
    open_loops = [step for step in visit.steps if step.load != CLOSED]
    closed = {(step.rows, step.encoding) for step in visit.steps if step.connections == 32 and step.load == CLOSED}
    assert {(step.rows, step.encoding) for step in open_loops} <= closed


@pytest.mark.parametrize("each", plan.PLANS.values(), ids=list(plan.PLANS))
def test_a_no_op_comes_after_the_server_whose_answer_it_repeats(each: Plan) -> None:
    asked: set[tuple[int, str]] = set()
    wanted: set[tuple[int, str]] = set()
    for group in each.groups:
        for visit in group:
            first = (visit.steps[0].rows, visit.steps[0].encoding)
            asked |= {first} if visit.peer is roster.TABSERVE else set()
            wanted |= {first} - asked if visit.peer.answers == "same" else set()
        ours = [visit for visit in group if visit.peer is roster.TABSERVE]
        asked |= {(step.rows, step.encoding) for visit in ours for step in visit.steps}
    assert wanted == set()


@pytest.mark.parametrize("peer", {visit.peer.name: visit.peer for visit in VISITS}.values(), ids=lambda peer: peer.name)
def test_commands_use_words_and_scripts_that_exist(peer: roster.Peer) -> None:
    words = {word: f"<{word}>" for word in WORDS}
    filled = [word.format_map(words) for command in peer.commands for word in command]
    scripts = [word.partition("<peers>/")[2] for word in filled if "<peers>/" in word]
    assert all((environments.PEERS / script).is_file() for script in scripts)
    assert filled[0] == "<python>"
    assert peer.environment == "tabserve" or (environments.PEERS / f"{peer.environment}.lock").is_file()


def test_the_full_plan_measures_every_peer_of_the_targets() -> None:
    measured = {
        Cell(visit.peer.name, visit.model, step.rows, step.encoding, step.connections)
        for visit in plan.FULL.visits
        for step in visit.steps
    }
    assert {cell.peer for cell in measured} >= {*STOCK, *CHAINS, "fastapi"}
    assert {Cell(peer, "xgboost", rows, "json", 32) for peer in STOCK for rows in (1, 64)} <= measured
    chains = ("tabserve-chain", *CHAINS)
    asked = "json-predict_proba"
    assert {Cell(peer, "xgboost", 1, asked, connections) for peer in chains for connections in (1, 16)} <= measured


def test_steps_that_peers_share_are_made_one_right_after_the_other() -> None:
    one, many, large = Step(1, "json", 1), Step(1, "json", 32), Step(64, "json", 32)
    group = tuple(
        Visit(roster.TABSERVE, "xgboost", steps) for steps in ((one, many, large, many), (many,), (one, large))
    )
    assert list(plan.in_turn(group)) == [(one, [0, 2]), (many, [0, 1]), (large, [0, 2]), (many, [0])]


def test_visits_with_different_steps_take_turns() -> None:
    records, one = Step(1, "records", 1), Step(1, "json", 1)
    group = Visit(roster.DECISIONS, "xgboost", (records,) * 3), Visit(roster.TABSERVE, "xgboost", (one,) * 3)
    assert list(plan.in_turn(group)) == 3 * [(records, [0]), (one, [1])]


def test_a_plan_of_one_model_measures_that_and_nothing_else() -> None:
    part = plan.of_model(plan.FULL, "forest")
    assert [(visit.peer, visit.model) for visit in part.visits] == [
        (roster.TABSERVE, "forest"),
        (roster.KSERVE_SKLEARNSERVER, "forest"),
    ]
    assert (part.bare, part.rounds) == (("forest",), plan.FULL.rounds)
