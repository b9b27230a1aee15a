"""What the person on call relies on, in the cluster: the monitor tells each alarm once, and an alert comes and goes."""

from __future__ import annotations

import json
import shutil
import urllib.parse
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tabserve import bundle as bundles
from tabserve.bundle import expected
from tests.chart.test_alerts import rules
from tests.cluster import chart
from tests.cluster.chart import NAMESPACE, connect, released
from tests.cluster.plain import RESTRICTED
from tests.cluster.test_chart_batch import ENVIRONMENT, IMAGE, STORE
from tests.cluster.test_chart_log import IMAGE as LOGGING
from tests.cluster.testbed import api, catalog
from tests.cluster.testbed.images import PYTHON
from tests.cluster.testbed.places import BUCKET, PROMETHEUS_PORT, S3, STANDARD_PORT

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.usefixtures("cluster")]
MODEL = "breast-cancer"
FOLDER = "watched"
ROWS = 600
SECONDS = 240
# Prints each event that it takes, on a line.
WEBHOOK = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        print(self.rfile.read(int(self.headers["content-length"])).decode(), flush=True)
        self.send_response(202)
        self.end_headers()
    def log_message(self, *_):
        pass
HTTPServer(("", 8080), Handler).serve_forever()
"""


def asked(path: str, host: str, body: Any) -> Any:
    """The answer of a model behind the gateway."""
    headers = {"Host": host, "content-type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{STANDARD_PORT}{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.fixture
def webhook() -> Generator[str]:
    """A pod that takes events, and prints them; its URL in the cluster."""
    metadata = {"name": "events", "namespace": NAMESPACE, "labels": {"app": "events"}}
    container = {"name": "events", "image": PYTHON, "command": ["python3", "-c", WEBHOOK]}
    user = {"securityContext": {**RESTRICTED, "runAsUser": 65532}}
    ready = {"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container | user | ready]}}
    ports = {"selector": {"app": "events"}, "ports": [{"port": 80, "targetPort": 8080}]}
    connect().apply(pod, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": ports})
    try:
        api.wait("the webhook", lambda: "" if chart.ready_pods(app="events") else "not ready", SECONDS, chart.explain)
        yield f"http://events.{NAMESPACE}/retrain"
    finally:
        for kind in ("Pod", "Service"):
            connect().delete("v1", kind, "events", NAMESPACE)


def events() -> list[dict[str, Any]]:
    """What the webhook has taken."""
    return [json.loads(line) for line in connect().logs(NAMESPACE, "events", "events", 1000).splitlines()]


def run_monitor(release: str, name: str) -> None:
    """Run a Job of the monitor's CronJob to its end."""
    spec = connect().get("batch/v1", "CronJob", f"{release}-monitor", NAMESPACE)["spec"]["jobTemplate"]["spec"]
    metadata = {"name": name, "namespace": NAMESPACE}
    connect().apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})

    def lacking() -> str:
        status = connect().get("batch/v1", "Job", name, NAMESPACE).get("status", {})
        return "" if status.get("succeeded") else f"not succeeded: {status}"

    try:
        api.wait(f"job {name}", lacking, SECONDS, chart.explain)
    finally:
        connect().delete("batch/v1", "Job", name, NAMESPACE)


def test_the_monitor_finds_in_the_store_what_has_changed_and_tells_it_once(bundle: Path, webhook: str) -> None:
    """Every record is the same, so that most of the features differ from the bundle's."""
    for image in (IMAGE, LOGGING):
        catalog.provide(image)
    shutil.rmtree(S3 / BUCKET / FOLDER, ignore_errors=True)  # of an earlier run
    found = bundles.load(bundle)
    no_disk = {"requests": {"cpu": "20m", "ephemeral-storage": None}, "limits": {"ephemeral-storage": None}}
    given = chart.values(
        MODEL,
        releases={"a": chart.on_volume(bundle)},
        transformer={"image": {"repository": "dev.local/tabserve-transformer-log"}},
        decisionLog={"to": f"s3://{BUCKET}/{FOLDER}{STORE}", "fileSeconds": 1, "env": ENVIRONMENT},
        monitor={
            "enabled": True,
            "schedule": "@yearly",
            "image": {"repository": "dev.local/tabserve-batch", "tag": "dev"},
            "notify": "$(RETRAIN)",
            "env": [{"name": "RETRAIN", "value": webhook}],
            "resources": no_disk,
        },
    )
    with released("watched") as release:
        release.apply(given)
        chart.wait_ready("watched-a")
        record = expected.record(found, 0)
        host = f"watched-{NAMESPACE}.example.com"

        def answered() -> str:
            return str(
                asked(f"/v1/models/{MODEL}:predict", host, {"instances": [record] * ROWS}).keys() - {"predictions"}
            )

        api.wait(
            "an answer through the route", lambda: "" if answered() == "set()" else "refused", SECONDS, chart.explain
        )

        def unwritten() -> str:
            files = (S3 / BUCKET / FOLDER).rglob("*.parquet")
            rows = sum(pq.read_metadata(path).num_rows for path in files)
            return "" if rows >= ROWS else f"{rows} of {ROWS} records"

        api.wait("the log", unwritten, SECONDS, chart.explain)
        run_monitor("watched", "watched-first")
        first = events()
        run_monitor("watched", "watched-second")
    report = json.loads((S3 / BUCKET / FOLDER / "_monitor" / found.digest[7:19] / "report.json").read_text())
    checks = {(each["what"], each["measure"]) for each in report["findings"] if each["alarm"]}
    print(f"{report['records']} records, {len(checks)} alarms, {len(first)} events")

    assert report["digest"] == found.digest
    assert len(checks) > 3
    assert {(each["subject"], each["data"]["measure"]) for each in first} == checks
    assert len(first) == len({each["id"] for each in first}) == len(checks)
    assert events() == first


def true(expression: str) -> bool:
    """Whether Prometheus finds anything for which an alert's expression holds."""
    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"http://127.0.0.1:{PROMETHEUS_PORT}/api/v1/query?{query}", timeout=10) as answer:
        return bool(json.load(answer)["data"]["result"])


def test_the_alert_on_a_lost_predictor_holds_while_it_is_killed_and_goes(bundle: Path) -> None:
    (lost,) = [
        rule["expr"] for rule in rules({"fullnameOverride": "oncall"}) if rule["alert"] == "TabservePredictorLost"
    ]
    ready = lost.replace("== 0", "== 1")
    predictors = {"serving.kserve.io/inferenceservice": "oncall-a", "component": "predictor"}

    def alive() -> str:
        for pod in chart.pods(**predictors):
            chart.kill(pod)
        return "" if true(lost) else "does not hold"

    with released("oncall") as release:
        release.apply(chart.values(MODEL, releases={"a": chart.on_volume(bundle)}))
        chart.wait_ready("oncall-a")
        api.wait("a predictor in Prometheus", lambda: "" if true(ready) else "none", SECONDS, chart.explain)
        assert not true(lost)
        api.wait("the alert's expression", alive, SECONDS, chart.explain, every=2)
        api.wait("its end", lambda: "" if true(ready) and not true(lost) else "holds", SECONDS, chart.explain)
