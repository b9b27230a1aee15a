"""Reports agree with what a stub server knows that it did."""

from __future__ import annotations

import pytest

from tests.loadtest.conftest import TRUSTING, Loadtest, Stubs, at_quantile, held

# These compare measured times, which works only on a machine that has nothing else to do.
pytestmark = pytest.mark.long

RATE, SECONDS, STALL_SECONDS = 300, 17, 2.0


def test_quantiles_agree_with_the_law_and_see_a_stall_that_stock_locust_does_not(
    stub: Stubs, loadtest: Loadtest
) -> None:
    server = stub("--law=lognormal:100:0.5", f"--stall={STALL_SECONDS}", "--stall_after=2000")

    run = loadtest(
        "server", f"--url={server.url}", f"--set=rate={RATE}", f"--set=seconds={SECONDS}", "--stock-users=10", TRUSTING
    )

    section = run.section
    truth = held(server, sum(section.outcomes.values()))
    # A start is late at random times, so lateness of starts also shows how late answers are noticed.
    noticed = 2 * section.late[1].value
    by_name = {f"p{q.q * 100:g}": q for q in section.quantiles}
    for name in ("p50", "p99", "p99.9"):
        quantile, true = by_name[name], at_quantile(truth, by_name[name].q)
        assert quantile.high is not None
        print(f"{name}: held {true} µs; reported {quantile.value} in [{quantile.low}, {quantile.high}] µs")
        assert quantile.low - noticed <= true <= quantile.high
    stock = {one.name: one for one in section.stock}["closed loop"]
    print(f"Locust's own: p50 {stock.p50:g} ms, p99 {stock.p99:g} ms of {stock.requests}")
    half_a_stall = STALL_SECONDS / 2 * 1000
    assert by_name["p99"].low / 1000 > half_a_stall > stock.p99


def test_1_4_and_1_6_milliseconds_are_told_apart(stub: Stubs, loadtest: Loadtest) -> None:
    medians = []
    for law in ("constant:1.4", "constant:1.6"):
        server = stub(f"--law={law}")
        section = loadtest("server", f"--url={server.url}", "--set=rate=150", "--set=seconds=6", TRUSTING).section
        medians.append(section.quantiles[0])
        print(law, medians[-1], section.stock)

    faster, slower = medians
    assert faster.high is not None
    assert faster.high < slower.low
