"""A real Prometheus scrapes real services: each graph has data, and one alert fires while its cause is there."""

from __future__ import annotations

import http.server
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.test_alerts import spec
from tests.chart.test_dashboard import QUERIES, filled
from tests.cluster.testbed.build import PROMETHEUS
from tests.faults.conftest import Subject, save_quick
from tests.serving import Service, free_port, running, start

pytestmark = pytest.mark.long
PODS = 'namespace="models",pod=~"fraud-[ab]-(predictor|transformer)-.+"'
VARIABLES = {
    "all": PODS,
    "entry": f'{PODS},arm!="shadow"',
    "monitor": 'release="fraud"',
    "gate": 'pod=~"fraud-rollout-.+"',
}
GATE = """tabserve_rollout_weight{pod="fraud-rollout-1-x"} 20
tabserve_rollout_threshold{pod="fraud-rollout-1-x"} 100
tabserve_rollout_evidence{pod="fraud-rollout-1-x",check="errors"} 2
tabserve_rollout_proof{pod="fraud-rollout-1-x",budget="errors"} 7
"""
"""As a gate shows them; a real one needs a cluster."""
WAIT_SECONDS = 120


class Prometheus:
    """A Prometheus that scrapes every second. targets: ports by the labels of what is there."""

    def __init__(self, folder: Path, targets: list[tuple[int, dict[str, str]]], rules: dict[str, Any]) -> None:
        PROMETHEUS.make()
        self.url = f"http://127.0.0.1:{free_port()}"
        jobs = [{"targets": [f"127.0.0.1:{port}"], "labels": labels} for port, labels in targets]
        quickly = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        jobs_of = [{"job_name": "pods", "honor_labels": True, "static_configs": jobs}]
        config = {"global": quickly, "rule_files": ["rules.yaml"], "scrape_configs": jobs_of}
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
        program = PROMETHEUS.folder / "usr" / "bin" / "prometheus"
        options = ("--config.file=prometheus.yaml", "--storage.tsdb.path=data", f"--web.listen-address={self.url[7:]}")
        with (folder / "prometheus.log").open("wb") as log:
            self.process = subprocess.Popen([program, *options], cwd=folder, stderr=log)

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer; nothing while it does not answer."""
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}") as answer:
                return json.load(answer)["data"]
        except OSError:
            return {"result": [], "alerts": []}

    def result(self, query: str) -> list[Any]:
        """What a query finds now that is a number."""
        found = self.ask("query", query=query)["result"]
        return [each for each in found if each["value"][1] != "NaN"]

    def firing(self) -> set[tuple[str, str]]:
        """The alerts that fire, and the pods that they are about."""
        alerts = [each for each in self.ask("alerts")["alerts"] if each["state"] == "firing"]
        return {(each["labels"]["alertname"], each["labels"].get("pod", "")) for each in alerts}


@contextmanager
def scraping(folder: Path, targets: list[tuple[int, dict[str, str]]], rules: dict[str, Any]) -> Generator[Prometheus]:
    """A Prometheus while the block runs."""
    found = Prometheus(folder, targets, rules)
    try:
        yield found
    finally:
        found.process.terminate()
        found.process.wait(60)


def wait_for(condition: Callable[[], bool], what: Callable[[], str]) -> float:
    """Wait until it holds; returns the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < WAIT_SECONDS, what()
        time.sleep(0.5)
    return time.monotonic() - began


@contextmanager
def showing(page: Path) -> Iterator[int]:
    """A server of a page of metrics, as a Pushgateway shows it; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(page.read_bytes() + GATE.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def labels(pod: str) -> dict[str, str]:
    """The labels that the PodMonitor gives."""
    return {"namespace": "models", "pod": pod, "container": "kserve-container"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_quick(tmp_path_factory.mktemp("quick") / "bundle")


@contextmanager
def asked(service: Service) -> Generator[None]:
    """More requests at once than the service takes, as long as the block runs."""
    subject, over = Subject(service), threading.Event()
    body = subject.payload.json()

    def ask() -> None:
        while not over.is_set():
            subject.target.infer(body)

    with ThreadPoolExecutor(6) as pool:
        busy = [pool.submit(ask) for _ in range(6)]
        try:
            yield
        finally:
            over.set()
    assert [each.result() for each in busy] == [None] * 6


def test_each_graph_of_the_dashboard_has_data(bundle: Path, tmp_path: Path) -> None:
    model, port = f"--model_dir={bundle}", free_port()
    log = (f"--decision_log={tmp_path / 'decisions'}", "--decision_log_file_seconds=1")
    host = f"--predictor_host=127.0.0.1:{port}"
    page = tmp_path / "monitored" / "metrics.prom"
    with (
        running("tabserve_predictor", model, log=tmp_path / "predictor.log", http_port=port) as predictor,
        running("tabserve_transformer", model, host, "--max_concurrency=1", *log, log=tmp_path / "log") as transformer,
        showing(page) as shown,
        asked(transformer),
    ):
        wait_for(lambda: len(list((tmp_path / "decisions").rglob("*.parquet"))) > 2, transformer.text)
        places = (str(tmp_path / "decisions"), f"--bundle={bundle}", f"--out={page.parent}")
        command = [sys.executable, "-m", "tabserve.cli", "monitor", *places, "--exit-zero"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        targets = [
            (predictor.admin_port, labels("fraud-a-predictor-x")),
            (transformer.admin_port, labels("fraud-a-transformer-x")),
            (shown, {"namespace": "models", "release": "fraud"}),
        ]
        with scraping(tmp_path, targets, {"groups": []}) as prometheus:
            queries = [filled(query, VARIABLES, "10s") for listed in QUERIES.values() for query in listed]
            assert len(queries) > 25

            def empty() -> list[str]:
                return [query for query in queries if not prometheus.result(query)]

            wait_for(lambda: not empty(), lambda: "\n".join(empty()))


def test_an_alert_fires_while_the_predictor_is_gone(bundle: Path, tmp_path: Path) -> None:
    model, port = f"--model_dir={bundle}", free_port()
    host = f"--predictor_host=127.0.0.1:{port}"
    lost = ("TabservePredictorLost", "fraud-a-transformer-x")
    with (
        running("tabserve_predictor", model, log=tmp_path / "predictor.log", http_port=port) as predictor,
        running("tabserve_transformer", model, host, log=tmp_path / "transformer.log") as transformer,
        scraping(tmp_path, [(transformer.admin_port, labels(lost[1]))], spec({})) as prometheus,
    ):
        ready = partial(prometheus.result, f"tabserve_predictors_ready{{{PODS}}} == 1")
        wait_for(lambda: bool(ready()), transformer.text)
        assert prometheus.firing() == set()
        predictor.signal(signal.SIGKILL)
        fired = wait_for(lambda: lost in prometheus.firing(), lambda: str(prometheus.ask("alerts")))
        back = start("tabserve_predictor", model, log=tmp_path / "back.log", http_port=port)
        try:
            gone = wait_for(lambda: not prometheus.firing(), lambda: str(prometheus.ask("alerts")))
        finally:
            back.kill()
    print(f"killed: the alert fired after {fired:.0f} s; started again: it was gone after {gone:.0f} s")
    assert fired >= 60
