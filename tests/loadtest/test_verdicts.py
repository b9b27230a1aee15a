"""Servers that are slow, wrong or failing, runs that are too short, generators that can't keep up."""

from __future__ import annotations

import pytest

from tests.loadtest.conftest import TRUSTING, Loadtest, Stubs

SHORT = ("--set=rate=200", "--set=seconds=3", TRUSTING)


def test_a_good_server_passes(stub: Stubs, loadtest: Loadtest) -> None:
    run = loadtest("server", f"--url={stub().url}", *SHORT, "--set=p50=2000", "--set=p99=3000")

    assert (run.status, run.document.verdict.value) == (0, "PASS"), run.text
    assert set(run.findings("PASS")) == {"error_rate = 0", "p50 ≤ 2000 ms", "p99 ≤ 3000 ms"}


@pytest.mark.parametrize(
    ("option", "objective"),
    [
        ("--law=constant:60", "p99 ≤ 50 ms"),
        ("--wrong=0.02", "wrong answers = 0"),
        ("--failing=0.02", "error_rate = 0"),
    ],
)
def test_a_bad_server_fails_by_the_name_of_what_broke(
    stub: Stubs, loadtest: Loadtest, option: str, objective: str
) -> None:
    run = loadtest("server", f"--url={stub(option).url}", *SHORT, "--set=p50=2000", "--set=p99=50")

    assert run.status == 1, run.text
    assert objective in run.findings("FAIL")
    assert f"FAIL {objective}" in run.text


def test_too_short_a_run_is_told(stub: Stubs, loadtest: Loadtest) -> None:
    run = loadtest("server", f"--url={stub().url}", "--set=rate=50", "--set=seconds=2", "--set=p99=3000", TRUSTING)

    assert (run.status, run.document.verdict.value) == (2, "TOO FEW SAMPLES"), run.text
    assert run.findings("TOO FEW SAMPLES") == ["p99 ≤ 3000 ms"]
    assert "459 requests" in run.text


def test_a_starved_generator_reports_nothing(stub: Stubs, loadtest: Loadtest) -> None:
    run = loadtest("server", f"--url={stub().url}", "--set=rate=30000", "--set=seconds=1")

    assert (run.status, run.document.verdict.value) == (3, "INVALID"), run.text
    assert "late starts ≤ 0.01" in run.findings("INVALID")
    assert run.section.quantiles == []


def test_too_few_users_for_an_open_loop_are_told(stub: Stubs, loadtest: Loadtest) -> None:
    run = loadtest("server", f"--url={stub('--law=constant:500').url}", *SHORT, "--users=5")

    assert run.status == 3, run.text
    assert "dropped ≤ 0.001" in run.findings("INVALID")


def test_refusals_are_goodput_lost_and_no_errors_in_overload(stub: Stubs, loadtest: Loadtest) -> None:
    server = stub("--law=constant:50", "--places=10")
    numbers = ("rows=1", "rate=100", "factor=3", "seconds=4", "p99=3000", "refusal_p99_ms=3000", "goodput_share=0.5")

    run = loadtest("overload", f"--url={server.url}", TRUSTING, *(f"--set={number}" for number in numbers))

    assert run.status == 0, run.text
    assert 0.1 < run.section.figures["refused_share"] < 0.7
    assert run.section.figures["retry_after_share"] == 1
