"""What `tabserve rollout status` and `verdict` say of the counts that Prometheus keeps."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Generator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tabserve.rollout.ledger import differing
from tests.unit.rollout_pods import Pod, judged, rollout


class Prometheus:
    """Answers instant queries of range vectors with samples of pods, by label matchers as they were sent."""

    def __init__(self) -> None:
        self.samples: dict[str, dict[tuple[str, str, tuple[tuple[str, str], ...]], list[list[Any]]]] = {}

    def scrape(self, matchers: str, pod: str, page: str, at: float) -> None:
        """Keep a pod's page as Prometheus would."""
        course = self.samples.setdefault(matchers, {})
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                labels = tuple(sorted(sample.labels.items()))
                course.setdefault((sample.name, pod, labels), []).append([at, str(sample.value)])

    def answer(self, query: str) -> dict[str, Any]:
        """The result of a query."""
        (matchers,) = [known for known in self.samples if known in query] or [""]
        counts = "tabserve_requests_total" in query
        result = [
            {"metric": {"__name__": name, "pod": pod, **dict(labels)}, "values": values}
            for (name, pod, labels), values in self.samples.get(matchers, {}).items()
            if (dict(labels).get("arm") == "split" if counts else name == "process_start_time_seconds")
        ]
        return {"status": "success", "data": {"resultType": "matrix", "result": result}}


@pytest.fixture
def prometheus() -> Generator[tuple[str, Prometheus]]:
    """Its URL, and what it knows."""
    known = Prometheus()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            found: Mapping[str, Any] = {}
            if asked.path == "/api/v1/query":
                found = known.answer(parse_qs(asked.query)["query"][0])
            body = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", known
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_prometheus_tells_the_same_by_minutes(prometheus: tuple[str, Prometheus]) -> None:
    """What was counted before the first look is left out, but not of a pod that was born since."""
    url, known = prometheus
    now = 100_000.0
    stable, canary = Pod(), Pod()
    canary.start = stable.start = now - 9000
    stable.answer(1600)
    stable.answer(8, "500")
    canary.answer(50, "500")
    late = Pod()
    late.start = now - 100
    for minute in range(5):
        stable.answer(160)
        canary.answer(40)
        known.scrape('pod=~"a-.*"', "a-1", stable.page(), now - 240 + 60 * minute)
        known.scrape('pod=~"b-.*"', "b-1", canary.page(), now - 250 + 60 * minute)
    late.answer(70)
    known.scrape('pod=~"b-.*"', "b-2", late.page(), now)
    options = [f"--prometheus={url}", '--stable=pod=~"a-.*"', '--canary=pod=~"b-.*"', "--minutes=5"]
    found = judged(*options)

    assert found["checks"]["errors"]["stable"] == "0 of 640 (0.00%)"
    assert found["checks"]["errors"]["canary"] == "0 of 230 (0.00%)"
    assert found["checks"]["decisions"]["canary"].split()[2] == "230"
    assert found["verdict"] == "on"


def test_bursts_at_single_pods_of_stable_take_weight_from_errors(prometheus: tuple[str, Prometheus]) -> None:
    url, known = prometheus
    canary = Pod()
    now, pods = 100_000.0, [Pod() for _ in range(3)]
    for minute in range(15):
        for number, pod in enumerate(pods):
            pod.answer(100)
            pod.answer(8 if minute % 3 == number else 0, "500")
            known.scrape('pod=~"a-.*"', f"a-{number}", pod.page(), now - 840 + 60 * minute)
        canary.answer(100)
        canary.answer(8 if minute in (3, 8) else 0, "500")
        known.scrape('pod=~"b-.*"', "b-1", canary.page(), now - 840 + 60 * minute)
    options = [f"--prometheus={url}", '--canary=pod=~"b-.*"', "--minutes=15"]
    done = rollout("status", *options, '--stable=pod=~"a-.*"')

    (factor,) = re.findall(r"Stable's pods differ in their errors (\S+) times as much as by chance", done.stdout)
    assert float(factor) > 2
    assert differing([[]]) is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--prometheus=http://127.0.0.1:9"], "no Prometheus answers there"),
        (["--prometheus=URL/nothing"], "no Prometheus answers there"),
        (["--prometheus=URL"], "Prometheus has no counts of the split in 60 minutes"),
        (["--prometheus=URL", "--state=s.json"], "Leave --state out"),
    ],
)
def test_a_prometheus_that_knows_nothing_is_no_verdict(
    prometheus: tuple[str, Prometheus], options: list[str], told: str
) -> None:
    given = [option.replace("URL", prometheus[0]) for option in options]
    done = rollout("verdict", '--stable=pod=~"a-.*"', '--canary=pod=~"b-.*"', *given)

    assert (done.exit_code, told in done.stderr) == (3, True), done.output
