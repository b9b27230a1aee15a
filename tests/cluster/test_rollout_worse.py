"""Canaries that are worse than stable in one way each: every one is taken back by the check that should find it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tabserve.rollout.judging import copies_of
from tabserve.rollout.state import State
from tests.cluster import canaries, chart
from tests.cluster.canaries import BENIGN, FLIPPED, MALIGNANT
from tests.cluster.gates import DAWDLES, World, gated, injected, told, wait_for_phase
from tests.cluster.shares import wait_for, wait_until_only

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.usefixtures("cluster")]
SHADOWED = {"percent": 50, "pairs": 2000}


def rows(world: World, identities: list[str]) -> set[int]:
    """Which records the requests with these ids had; an id may have a row's place behind it."""
    sent = {answer.identity: answer.record for answer in world.seen.answers}
    return {sent[identity.partition("/")[0]] for identity in identities}


def found_in_the_shadow(world: World) -> State:
    """What the gate keeps once it has taken the canary back, which no client has been answered by."""
    found = wait_for_phase(world.release.name, "back", 0)
    wait_for(world.seen, 200)
    told(world, found)
    assert world.seen.failures() == []
    assert {answer.transformer for answer in world.seen.answers} == {world.a}
    assert {change.weight for change in found.changes} == {0}
    return found


def test_flipped_labels_are_found_before_any_client_meets_them(tmp_path: Path) -> None:
    stable, canary, sent = (
        canaries.exact(tmp_path / "a"),
        canaries.flipped(tmp_path / "b"),
        canaries.as_clients_send(),
    )
    truth = canaries.malignant()
    with gated("flipped", stable, canary, records=sent, shadow=SHADOWED) as world:
        found = found_in_the_shadow(world)
        copies = copies_of(found)
        flips = {
            (was, now): rows(world, cell.ids) for was, cells in copies.flips.items() for now, cell in cells.items()
        }
        counted = {(was, now): cell.requests for was, cells in copies.flips.items() for now, cell in cells.items()}
        print(f"{copies.decided} pairs, {copies.different} different: {counted}")

    assert found.told.startswith("Back: different answers: ")
    assert {*flips} == {(MALIGNANT, BENIGN), (BENIGN, MALIGNANT)}
    assert flips[MALIGNANT, BENIGN] <= {row for row in FLIPPED if truth[row]}
    assert flips[BENIGN, MALIGNANT] <= {row for row in FLIPPED if not truth[row]}
    assert sum(counted.values()) == copies.different
    assert 0.02 < copies.different / copies.decided < 0.1


def test_a_schema_that_refuses_records_is_found_before_any_client_meets_it(tmp_path: Path) -> None:
    stable, (canary, refused) = canaries.exact(tmp_path / "a"), canaries.narrow(tmp_path / "b")
    with gated("narrow", stable, canary, records=canaries.as_clients_send(), shadow=SHADOWED) as world:
        found = found_in_the_shadow(world)
        copies = copies_of(found)
        named = rows(world, copies.refused_ids)
        print(
            f"{copies.asked} asked, {copies.canary_refused} refused by the canary alone, {copies.different} different"
        )

    assert found.told.startswith("Back: refused requests by one slot alone: ")
    assert named <= refused
    assert len(named) > 1
    assert (copies.different, copies.stable_refused) == (0, 0)


def test_a_slower_canary_is_found_by_its_latencies_alone(bundle: Path, tmp_path: Path) -> None:
    second = chart.next_version(bundle, tmp_path / "second")
    changes = injected("slower", DAWDLES)
    with gated("slower", bundle, second, changes, grpc=0, steps=[50]) as world:
        found = wait_for_phase("slower", "back", 0, 600)
        wait_until_only(world.seen, world.a)
        told(world, found)

    assert world.seen.failures() == []
    assert found.told.startswith("Back: requests that took over ")
