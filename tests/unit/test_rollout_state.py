"""The state of a rollout that a ConfigMap keeps."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tabserve.rollout.checks import Rules
from tabserve.rollout.errors import RolloutError
from tabserve.rollout.scrape import Tally
from tabserve.rollout.state import MOST_POINTS, Change, Counted, Evidence, Point, Slot, State, Step, parse


def state() -> State:
    counted = Counted.of(Tally(requests=5, errors=1, decisions={"stop": 4}))
    return State(
        "fraud", "models", Slot("a", "0a"), Slot("b", "0b"), Rules(errors=0.03), [5, 20], "2026-11-30T12:00:00Z",
        phase="step", step=1, weight=20, changes=[Change(1.5, "step", 5, "watched")],
        counted=[Step(5, counted, counted)],
        evidence=Evidence(0.5, 20, None, ["stop"], {"errors": [[0.1, -2.0]]}, {"errors": [1.0]}),
    )  # fmt: skip


def test_what_is_written_is_read() -> None:
    found = parse(state().text(), "x")

    assert found == state()
    assert found.rules.errors == 0.03


def test_a_tally_is_kept() -> None:
    tally = Tally(3, 1, 0, 2, np.arange(4.0), {"stop": 1.0}, np.ones(2))
    found = Counted.of(tally).tally()

    np.testing.assert_array_equal(found.slower, tally.slower)
    np.testing.assert_array_equal(found.scores, tally.scores)
    assert (found.requests, found.decisions) == (3, {"stop": 1.0})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", "Object missing required field `format`"),
        ("{", "is no state of a rollout (Input data was truncated)"),
        (json.dumps(json.loads(state().text()) | {"format": 2}), "expected a rollout's state of format 1, got 2"),
        (json.dumps(json.loads(state().text()) | {"phase": "dance"}), "Invalid enum value 'dance' - at `$.phase`"),
        (json.dumps(json.loads(state().text()) | {"weight": "5"}), "Expected `int`, got `str` - at `$.weight`"),
    ],
)
def test_another_version_or_a_damaged_one_is_refused_by_name(text: str, told: str) -> None:
    with pytest.raises(RolloutError) as caught:
        parse(text, "ConfigMap models/fraud-rollout")

    assert str(caught.value).startswith("ConfigMap models/fraud-rollout: ")
    assert told in str(caught.value)
    assert "tabserve rollout forget" in str(caught.value)


def test_the_history_stays_short_and_keeps_its_ends() -> None:
    kept = state()
    for at in range(5 * MOST_POINTS):
        kept.add(Point(at, 5, 0.0, {}, {}))

    assert len(kept.history) <= MOST_POINTS
    assert (kept.history[0].at, kept.history[-1].at) == (0, 5 * MOST_POINTS - 1)
