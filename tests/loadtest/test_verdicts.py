"""Servers that are slow, wrong or failing, runs that are too short, generators that can't keep up."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack

import pytest

from tests.loadtest.conftest import TRUSTING, Loadtest, Run, Stubs, run_together, start_stub

pytestmark = pytest.mark.alone

SHORT = ("--set=rate=300", "--set=seconds=2", TRUSTING)
FAIR = (*SHORT, "--set=p50=4000", "--set=p99=6000")
OVERLOAD = ("rows=1", "rate=100", "factor=3", "seconds=4", "p99=6000", "refusal_p99_ms=6000", "goodput_share=0.4")
CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # options of a stub, and of the run on it
    "good": ((), ("server", *FAIR)),
    "slow": (("--law=constant:60",), ("server", *FAIR, "--set=p99=50")),
    "wrong": (("--wrong=0.02",), ("server", *FAIR)),
    "failing": (("--failing=0.02",), ("server", *FAIR)),
    "short": ((), ("server", *FAIR, "--set=seconds=1", "--set=rate=60")),
    "full": (("--law=constant:500",), ("server", *FAIR, "--users=5")),
    "overload": (("--law=constant:50", "--places=10"), ("overload", TRUSTING, *(f"--set={n}" for n in OVERLOAD))),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Generator[dict[str, Run]]:
    """The runs of all cases."""
    folder = tmp_path_factory.mktemp("runs")
    with ExitStack() as stack:
        urls = {name: start_stub(stack, folder / f"{name}.log", *options).url for name, (options, _) in CASES.items()}
        yield run_together(folder, {name: (*options, f"--url={urls[name]}") for name, (_, options) in CASES.items()})


def test_a_good_server_passes(runs: dict[str, Run]) -> None:
    run = runs["good"]

    assert (run.status, run.document.verdict.value) == (0, "PASS"), run.text
    assert set(run.findings("PASS")) == {"error_rate = 0", "p50 ≤ 4000 ms", "p99 ≤ 6000 ms"}


@pytest.mark.parametrize(
    ("name", "objective"), [("slow", "p99 ≤ 50 ms"), ("wrong", "wrong answers = 0"), ("failing", "error_rate = 0")]
)
def test_a_bad_server_fails_by_the_name_of_what_broke(runs: dict[str, Run], name: str, objective: str) -> None:
    run = runs[name]

    assert run.status == 1, run.text
    assert objective in run.findings("FAIL")
    assert f"FAIL {objective}" in run.text


def test_too_short_a_run_is_told(runs: dict[str, Run]) -> None:
    run = runs["short"]

    assert (run.status, run.document.verdict.value) == (2, "TOO FEW SAMPLES"), run.text
    assert run.findings("TOO FEW SAMPLES") == ["p99 ≤ 6000 ms"]
    assert "459 requests" in run.text


def test_too_few_users_for_an_open_loop_are_told(runs: dict[str, Run]) -> None:
    run = runs["full"]

    assert run.status == 3, run.text
    assert "dropped ≤ 0.001" in run.findings("INVALID")


def test_refusals_are_goodput_lost_and_no_errors_in_overload(runs: dict[str, Run]) -> None:
    run = runs["overload"]

    assert run.status == 0, run.text
    assert 0.1 < run.section.figures["refused_share"] < 0.8
    assert run.section.figures["retry_after_share"] == 1
    assert list(run.section.errors) == ['refused: 503 {"error": "overloaded"}']
    assert 'times refused: 503 {"error": "overloaded"}' in run.text


def test_a_starved_generator_reports_nothing(stub: Stubs, loadtest: Loadtest) -> None:
    run = loadtest("server", f"--url={stub().url}", "--set=rate=30000", "--set=seconds=1")

    assert (run.status, run.document.verdict.value) == (3, "INVALID"), run.text
    assert "late starts ≤ 0.01" in run.findings("INVALID")
    assert run.section.quantiles == []
