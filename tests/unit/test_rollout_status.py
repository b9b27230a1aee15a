"""What `tabserve rollout status` and `verdict` say of pages of metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.rollout_pods import Pod, judged, rollout


@pytest.fixture
def stable() -> Pod:
    pod = Pod()
    pod.answer(1600)
    pod.answer(8, "500")
    return pod


@pytest.fixture
def canary() -> Pod:
    return Pod()


@pytest.fixture
def sources(stable: Pod, canary: Pod, tmp_path: Path) -> list[str]:
    """Options for both pods' pages, written again by `write`."""
    write(stable, canary, tmp_path)
    return [f"--stable={tmp_path / 'stable'}", f"--canary={tmp_path / 'canary'}"]


def write(stable: Pod, canary: Pod, folder: Path) -> None:
    stable.save(folder / "stable")
    canary.save(folder / "canary")


@pytest.mark.parametrize(
    ("good", "failed", "status", "told"),
    [
        (400, 0, 0, "On: the budgets are proven"),
        (360, 40, 1, "Back: failed requests: 40 of 400 (10.00%) at the canary, 8 of 1608 (0.50%) at stable."),
        (60, 0, 2, "Not yet: too few requests prove the budget of errors and slow."),
        (0, 0, 2, "Not yet: one of the slots has answered no request of the split."),
    ],
)
def test_the_verdict_is_an_exit_status(
    stable: Pod, canary: Pod, sources: list[str], tmp_path: Path, good: int, failed: int, status: int, told: str
) -> None:
    canary.answer(good)
    canary.answer(failed, "500")
    write(stable, canary, tmp_path)
    done = rollout("verdict", *sources)

    assert (done.exit_code, done.stdout.startswith(told)) == (status, True), done.output
    assert rollout("status", *sources).stdout.splitlines()[0] == done.stdout.strip()


@pytest.mark.parametrize(
    ("status", "seconds", "check", "event"),
    [
        ("503", 0.004, "errors", "failed requests: 30 of 430"),
        ("INTERNAL", 0.004, "errors", "failed requests: 30 of 430"),
        ("400", 0.004, "refused", "refused requests: 30 of 430"),
        ("RESOURCE_EXHAUSTED", 0.004, "refused", "refused requests: 30 of 430"),
        ("200", 0.03, "latency", "requests that took over 0.025 s: 30 of 430"),
    ],
)
def test_each_kind_of_event_is_found_by_its_own_check(
    stable: Pod, canary: Pod, sources: list[str], tmp_path: Path, status: str, seconds: float, check: str, event: str
) -> None:
    canary.answer(400)
    canary.answer(30, status, seconds=seconds)
    write(stable, canary, tmp_path)
    found = judged(*sources)
    rows = found["checks"].values()
    passing = [row["check"] for row in rows if row["log"] >= np.log(row["needed"])]

    assert found["verdict"] == "back"
    assert event in found["reason"]
    assert [name for name in passing if "budget" not in name] == [check]


def test_only_the_split_is_judged(stable: Pod, canary: Pod, sources: list[str], tmp_path: Path) -> None:
    canary.answer(400)
    write(stable, canary, tmp_path)
    before = judged(*sources)
    for arm in ("forced", "shadow"):
        canary.answer(300, "500", seconds=1.0, arm=arm)
    write(stable, canary, tmp_path)

    assert judged(*sources) == before


def test_a_share_that_is_not_the_routes_is_found_if_the_route_is_told(
    stable: Pod, canary: Pod, sources: list[str], tmp_path: Path
) -> None:
    canary.answer(400)
    write(stable, canary, tmp_path)

    assert "split" in " ".join(judged(*sources)["not_judged"])
    assert judged(*sources, "--percent=20")["verdict"] == "on"
    found = judged(*sources, "--percent=40")
    assert (found["verdict"], found["reason"].partition(".")[0]) == ("back", "Back: 19")


def test_a_state_counts_only_what_came_since_and_looking_again_adds_nothing(
    stable: Pod, canary: Pod, sources: list[str], tmp_path: Path
) -> None:
    canary.answer(5, "500")
    write(stable, canary, tmp_path)
    state = f"--state={tmp_path / 'state.json'}"
    assert judged(*sources, state)["reason"].startswith("Not yet: one of the slots")
    for _ in range(2):
        stable.answer(400)
        canary.answer(200)
        write(stable, canary, tmp_path)
        judged(*sources, state)
    found = judged(*sources, state)

    assert found["verdict"] == "on"
    assert found["checks"]["errors"]["canary"] == "0 of 400 (0.00%)"
    assert found["checks"]["errors"]["stable"] == "0 of 800 (0.00%)"


def test_evidence_from_looks_is_that_of_their_ticks(
    stable: Pod, canary: Pod, sources: list[str], tmp_path: Path
) -> None:
    """Two looks at the same shares are worth one look at all, because the evidence in rare events multiplies."""
    state = f"--state={tmp_path / 'state.json'}"
    judged(*sources, state)
    for _ in range(2):
        stable.answer(400)
        canary.answer(98)
        canary.answer(2, "500")
        write(stable, canary, tmp_path)
        several = judged(*sources, state)
    fresh = (Pod(), Pod())
    fresh[0].answer(800)
    fresh[1].answer(196)
    fresh[1].answer(4, "500")
    write(*fresh, tmp_path)

    assert several["checks"]["errors"] == judged(*sources)["checks"]["errors"]


def test_a_canary_that_was_to_be_taken_back_stays_so(
    stable: Pod, canary: Pod, sources: list[str], tmp_path: Path
) -> None:
    state = f"--state={tmp_path / 'state.json'}"
    judged(*sources, state)
    for failed, good, others in ((9, 200, 0), (0, 3000, 60)):
        stable.answer(3000)
        stable.answer(others, "500")
        canary.answer(good)
        canary.answer(failed, "500")
        write(stable, canary, tmp_path)
        found = judged(*sources, state)

    assert found["checks"]["errors"]["log"] < np.log(found["checks"]["errors"]["needed"])
    assert found["verdict"] == "back"


def test_a_pod_that_was_restarted_counts_from_nothing(
    stable: Pod, canary: Pod, sources: list[str], tmp_path: Path
) -> None:
    canary.answer(300)
    write(stable, canary, tmp_path)
    state = f"--state={tmp_path / 'state.json'}"
    judged(*sources, state)
    fresh = Pod()
    fresh.start = 2000.0
    fresh.answer(350)
    write(stable, fresh, tmp_path)

    assert judged(*sources, state)["checks"]["errors"]["canary"] == "0 of 350 (0.00%)"


def test_pods_of_a_slot_are_added_up_and_a_decision_that_comes_later_is_not_judged(
    stable: Pod, canary: Pod, sources: list[str], tmp_path: Path
) -> None:
    canary.answer(100)
    write(stable, canary, tmp_path)
    other = Pod()
    other.answer(50)
    pods = [*sources, f"--canary={other.save(tmp_path / 'other')}"]
    state = f"--state={tmp_path / 'state.json'}"
    assert judged(*pods)["checks"]["errors"]["canary"] == "0 of 150 (0.00%)"
    judged(*pods, state)
    judged(*pods, state)
    canary.decisions.add("block", "split", count=40)
    write(stable, canary, tmp_path)

    assert "the decision `block`: it came after the first look." in judged(*pods, state)["not_judged"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "no metrics can be read"),
        ("<html>", "is no page of metrics"),
        ("up 1\n", "has no metrics of tabserve"),
    ],
)
def test_a_page_that_is_none_is_no_verdict(sources: list[str], tmp_path: Path, content: str | None, told: str) -> None:
    (tmp_path / "canary").unlink()
    if content is not None:
        (tmp_path / "canary").write_text(content)
    done = rollout("verdict", *sources)

    assert (done.exit_code, told in done.stderr) == (3, True), done.output
    assert rollout("status", *sources).exit_code == 1


@pytest.mark.parametrize(
    ("option", "told"),
    [("--canary=http://[x/metrics", "no metrics can be read"), ("--state=none/state.json", "cannot be written")],
)
def test_what_cannot_be_asked_or_kept_is_no_verdict(sources: list[str], option: str, told: str) -> None:
    done = rollout("verdict", *sources, option)

    assert (done.exit_code, told in done.stderr) == (3, True), done.output


@pytest.mark.parametrize(
    "wrong", [["--slow-over=0.3"], ["--percent=100"], ["--unknown"], ["--false-rollback=0"], ["--change=0.5"]]
)
def test_wrong_options_are_no_verdict(sources: list[str], wrong: list[str]) -> None:
    assert rollout("verdict", *sources, *wrong).exit_code == 3


@pytest.mark.parametrize(
    ("content", "options", "told"),
    [
        ("{}", [], "is no state of a rollout (KeyError)"),
        ("[1", [], "is no state of a rollout"),
        ('{"format": 2}', [], "expected format 1, got 2"),
        ("", ["--errors=0.5"], "was written with other rules"),
        ("", ["--percent=20"], "was written with other rules, or at another share"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_removing_it_helps(
    sources: list[str], tmp_path: Path, content: str, options: list[str], told: str
) -> None:
    state = tmp_path / "state.json"
    rollout("status", *sources, f"--state={state}")
    state.write_text(content or state.read_text())
    done = rollout("verdict", *sources, f"--state={state}", *options)

    assert (done.exit_code, told in done.stderr) == (3, True), done.output
    assert f"Remove {state} to start again" in done.stderr
    state.unlink()
    assert rollout("verdict", *sources, f"--state={state}", *options).exit_code == 2
