from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import cache, environments, turns
from benchmarks.turns import Compared, Question, Taken
from tests.benchmarks.test_results import measurement


def turn(**per_second: float) -> dict[str, Taken]:
    return {name: Taken(measurement(each), measurement(each / 2, p50=1 / each)) for name, each in per_second.items()}


TURNS = [turn(plain=1000, secured=900), turn(secured=880, plain=1000), turn(plain=500, secured=460)]


def test_chains_are_compared_within_their_turns() -> None:
    asked = Question("secured", "plain", "with", "without", {turns.PER_SECOND: 0.95, turns.P50: None})
    many, p50 = turns.compared(TURNS, asked)

    assert many.what == "with: requests per second ÷ without"
    assert many.got == pytest.approx([0.9, 0.88, 0.92])
    assert p50.got == pytest.approx([1 / 0.9, 1 / 0.88, 1 / 0.92])
    assert (many.at_most, p50.at_most) == (False, True)


@pytest.mark.parametrize(
    ("got", "bound", "at_most", "verdict"),
    [
        ([0.9, 0.91, 0.92], 0.95, False, "missed"),
        ([0.9, 0.91, 0.92], 0.95, True, "met"),
        ([0.8, 0.91, 1.05], 0.95, False, "met"),
        ([1.2, 1.21, 1.22], 1.02, True, "missed"),
        ([1.2, 1.21, 1.22], None, True, ""),
    ],
)
def test_a_bound_is_missed_if_the_whole_interval_is_beyond_it(
    got: list[float], bound: float | None, at_most: bool, verdict: str
) -> None:
    assert Compared("what", got, bound, at_most).verdict == verdict


def test_the_page_has_ratios_and_what_each_chain_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = Question("secured", "plain", "with", "without", {turns.PER_SECOND: 0.95})
    turns.write("What it costs", {"date": "today"}, TURNS, turns.compared(TURNS, asked), tmp_path)
    page = (tmp_path / "table.md").read_text()

    assert capsys.readouterr().out.strip() == page.strip()
    assert "| with: requests per second ÷ without | ≥ 0.95 | 0.900 |" in page
    assert "| plain | 1,000 |" in page
    assert '"plain"' in (tmp_path / "summary.json").read_text()


def test_the_lock_without_an_extras_libraries_has_all_others(tmp_path: Path) -> None:
    whole = (cache.ROOT / "requirements.lock").read_text().splitlines()
    left = environments.without("opentelemetry-", tmp_path / "lock").read_text().splitlines()
    gone = [line for line in whole if line not in left]

    assert not [line for line in left if line.startswith("opentelemetry")]
    assert {line.partition("==")[0] for line in gone if "==" in line} == {
        line.partition("==")[0] for line in whole if line.startswith("opentelemetry-")
    }
    assert sum("==" in line for line in left) > 100
