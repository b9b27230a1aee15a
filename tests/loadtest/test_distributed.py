"""Several generating processes, with Locust's own distributed mode."""

from __future__ import annotations

import pytest

from tabserve_loadtest import schedule
from tabserve_loadtest.schedule import Segment
from tests.loadtest.conftest import TRUSTING, Loadtest, Stubs

pytestmark = pytest.mark.alone


def test_two_generators_send_exactly_what_one_does(stub: Stubs, loadtest: Loadtest) -> None:
    server, seed = stub(), 41
    options = ("server", f"--url={server.url}", "--set=rate=200", "--set=seconds=4", f"--seed={seed}", TRUSTING)

    alone, together = loadtest(*options), loadtest(*options, "--workers=2")

    planned = schedule.arrivals("poisson", [Segment(200, 4)], seed + 1)
    for run in (alone, together):
        assert sum(run.section.outcomes.values()) == run.section.quantiles[0].n == len(planned), run.text
        assert [point.requests for point in run.section.seconds] == [
            int((planned.astype(int) == second).sum()) for second in range(4)
        ]
