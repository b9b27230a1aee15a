from __future__ import annotations

import msgspec
import pytest

from tabserve_loadtest.objectives import DEFAULT, Load, Objectives, ObjectivesError, fraction, read
from tabserve_loadtest.recording import Outcome, Recording
from tabserve_loadtest.verdict import Judgement, Verdict, judge, overall, trust, worst

LIMITS = read(DEFAULT).generator


def recording(over: int = 0, total: int = 1000, late: int = 0, **outcomes: int) -> Recording:
    """Requests of 1 ms, some of 100 ms; some are late, some have other outcomes than ok."""
    found = Recording()
    kinds: list[Outcome] = [kind for kind, count in outcomes.items() for _ in range(count)]  # type: ignore[misc]
    for number in range(total):
        kind = kinds[number] if number < len(kinds) else "ok"
        found.add(0, 100_000 if number < over else 1000, 50_000 if number < late else 10, kind, "", 1)
    return found


def verdicts(found: Recording, **objectives: object) -> dict[str, Verdict]:
    wanted = msgspec.convert({"load": {}, **objectives}, Objectives)
    return {finding.objective: finding.verdict for finding in judge(found, {"goodput": 0.8}, wanted, 0.99)}


@pytest.mark.parametrize(
    ("over", "total", "expected"),
    [
        (0, 459, Verdict.PASS),
        (0, 458, Verdict.TOO_FEW),
        (1, 459, Verdict.TOO_FEW),
        (11, 459, Verdict.FAIL),
        (2, 1000, Verdict.PASS),
        (9, 1000, Verdict.TOO_FEW),
        (11, 1000, Verdict.TOO_FEW),
        (19, 1000, Verdict.FAIL),
        (5, 5, Verdict.FAIL),
    ],
)
def test_p99_is_judged_by_what_the_number_over_the_limit_proves(over: int, total: int, expected: Verdict) -> None:
    assert verdicts(recording(over, total), latency={"p99": 50})["p99 ≤ 50 ms"] is expected


def test_p99_9_needs_4603_requests() -> None:
    assert verdicts(recording(total=4602), latency={"p99.9": 50})["p99.9 ≤ 50 ms"] is Verdict.TOO_FEW
    assert verdicts(recording(total=4603), latency={"p99.9": 50})["p99.9 ≤ 50 ms"] is Verdict.PASS


def test_any_wrong_answer_breaks_any_error_rate() -> None:
    assert verdicts(recording(wrong=1), error_rate=0.5)["wrong answers = 0"] is Verdict.FAIL


@pytest.mark.parametrize("kind", ["failed", "timeout", "refused", "dropped"])
def test_errors_of_every_kind_count(kind: str) -> None:
    assert verdicts(recording(**{kind: 1}))["error_rate = 0"] is Verdict.FAIL
    assert verdicts(recording(**{kind: 1}), error_rate=0.01)["error_rate ≤ 0.01"] is Verdict.PASS
    assert verdicts(recording(**{kind: 50}), error_rate=0.01)["error_rate ≤ 0.01"] is Verdict.FAIL


def test_refusals_are_answers_where_they_are_allowed() -> None:
    wanted = Objectives(Load())
    allowed, not_allowed = (judge(recording(refused=9), {}, wanted, 0.99, allowed) for allowed in (True, False))

    assert (overall(allowed), overall(not_allowed)) == (Verdict.PASS, Verdict.FAIL)


def test_figures_are_judged_by_name_and_a_missing_one_is_no_pass() -> None:
    found = verdicts(recording(), at_least={"goodput": 0.9}, at_most={"goodput": 0.9, "recovery_s": 3})

    assert found["goodput ≥ 0.9"] is Verdict.FAIL
    assert found["goodput ≤ 0.9"] is Verdict.PASS
    assert found["recovery_s ≤ 3"] is Verdict.TOO_FEW


def test_a_generator_that_was_the_limit_is_told() -> None:
    assert trust(recording(late=5), LIMITS, closed=False) == []
    assert [finding.verdict for finding in trust(recording(late=50), LIMITS, closed=False)] == [Verdict.INVALID]
    dropped = recording()
    for _ in range(20):
        dropped.drop(0)
    assert "20 of 1,020" in trust(dropped, LIMITS, closed=False)[0].measured
    busy = recording()
    busy.busy = 0.97
    assert trust(busy, LIMITS, closed=False) == []
    assert [finding.verdict for finding in trust(busy, LIMITS, closed=True)] == [Verdict.INVALID]


def test_exit_codes_and_what_comes_first() -> None:
    findings = [Judgement("", verdict, "") for verdict in Verdict]

    assert [verdict.exit_code for verdict in Verdict] == [0, 1, 2, 3]
    assert [verdict.value for verdict in Verdict] == ["PASS", "FAIL", "TOO FEW SAMPLES", "INVALID"]
    assert [overall(findings[:last]) for last in range(5)] == [
        Verdict.PASS,
        Verdict.PASS,
        Verdict.FAIL,
        Verdict.FAIL,
        Verdict.INVALID,
    ]
    assert worst(list(Verdict)) is Verdict.FAIL
    assert worst([Verdict.PASS, Verdict.TOO_FEW, Verdict.INVALID]) is Verdict.INVALID


def test_numbers_are_overridden_for_one_scenario_or_for_those_that_run() -> None:
    plan = read(DEFAULT, ["server.rate=7", "p99=3", "generator.late_ms=9", "recovery_s=4"], ["spike", "overload"])

    assert plan.scenarios["server"].load.rate == 7
    assert [plan.scenarios[name].latency["p99"] for name in ("spike", "overload")] == [3, 3]
    assert plan.scenarios["server"].latency["p99"] != 3
    assert plan.scenarios["spike"].at_most == {"recovery_s": 4}
    assert plan.generator.late_ms == 9


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rate", "expected NAME=VALUE"),
        ("speed=3", "got 'speed'"),
        ("rate=fast", r"\$.scenarios\[...\].load.rate"),
        ("p100=3", "expected a quantile such as p99"),
    ],
)
def test_an_override_that_fits_nothing_is_refused(override: str, message: str) -> None:
    with pytest.raises(ObjectivesError, match=message):
        read(DEFAULT, [override], ["server"])


def test_quantiles_have_names() -> None:
    assert [fraction(name) for name in ("p50", "p99", "p99.9")] == pytest.approx([0.5, 0.99, 0.999])
